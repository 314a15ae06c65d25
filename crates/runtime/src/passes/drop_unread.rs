//! Removes steps whose output has no consumer.

use crate::program::Program;

pub(super) fn run(program: &mut Program) {
    for i in (0..program.steps.len()).rev() {
        if program.consumers(program.steps[i].output) == 0 {
            program.steps.remove(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::passes::tests::{conv, program, steps};

    #[test]
    fn a_branch_without_consumers_is_removed_as_a_whole() {
        let mut p = program(
            &[
                ("a", &["x"], conv()),
                ("b", &["a"], conv()),
                ("c", &["b"], conv()),
            ],
            "a",
        );
        super::run(&mut p);
        assert_eq!(steps(&p), ["a"]);
    }
}
