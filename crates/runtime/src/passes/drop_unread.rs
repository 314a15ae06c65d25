//! Removes steps whose output has no consumer.

use crate::program::Program;
use crate::rewrite::Rewrite;

pub(super) fn run(program: &mut Program) {
    let mut rewrite = Rewrite::new(program);
    for i in (0..rewrite.len()).rev() {
        if rewrite.consumers(rewrite.step(i).output) == 0 {
            rewrite.remove(i);
        }
    }
    rewrite.finish();
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
