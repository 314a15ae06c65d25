//! Makes one step of a transposition and the reshapings around it: the numbers then move once.

use sparsevd_model::{Op, ops};

use crate::program::Program;
use crate::rewrite::Rewrite;

pub(super) fn run(program: &mut Program) {
    let mut rewrite = Rewrite::new(program);
    for i in 0..rewrite.len() {
        let step = rewrite.visit(i);
        let before = step.inputs[0];
        let Some(first) = rewrite
            .producer(before)
            .filter(|_| rewrite.consumers(before) == 1)
        else {
            continue;
        };
        match (&rewrite.step(first).op, &rewrite.step(i).op) {
            // A transposition knows its dimensions by its own shapes.
            (Op::Reshape(_), Op::Transpose(_)) => {
                let to = rewrite.step(first).inputs[0];
                rewrite.bypass(first, to);
                rewrite.visit(i);
            }
            (Op::Reshape(_) | Op::Transpose(_), Op::Reshape(_)) => {
                let shape = rewrite.step(i).output_shape.clone();
                let step = rewrite.step_mut(first);
                step.output_shape = shape.clone();
                if let Op::Reshape(ops::Reshape { shape: of_op }) = &mut step.op {
                    *of_op = shape.0;
                }
                rewrite.join(first, i);
            }
            _ => {}
        }
    }
    rewrite.finish();
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Op, Shape, ops};

    use crate::passes::tests::{conv, max_pool, program, steps};

    fn reshape(shape: &[usize]) -> Op {
        Op::Reshape(ops::Reshape {
            shape: shape.to_vec(),
        })
    }

    fn transpose(perm: &[usize]) -> Op {
        Op::Transpose(ops::Transpose {
            perm: perm.to_vec(),
        })
    }

    #[test]
    fn a_transposition_between_two_reshapings_is_one_step() {
        let mut p = program(
            &[
                ("relu", &["x"], Op::Relu),
                ("split", &["relu"], reshape(&[2, 2, 2, 4])),
                ("turn", &["split"], transpose(&[1, 0, 3, 2])),
                ("flat", &["turn"], reshape(&[32])),
                ("map", &["flat"], reshape(&[4, 2, 4])),
                ("last", &["map"], Op::Relu),
            ],
            "last",
        );
        super::run(&mut p);
        assert_eq!(steps(&p), ["relu", "turn", "last"]);
        assert_eq!(p.steps[1].inputs, [p.steps[0].output]);
        assert_eq!(p.steps[1].input_shape, Shape::from([2, 2, 2, 4]));
        assert_eq!(p.steps[1].output_shape, Shape::from([4, 2, 4]));
        assert_eq!(p.steps[2].inputs, [p.steps[1].output]);
    }

    #[test]
    fn reshapings_in_a_row_are_one_and_what_others_read_stays() {
        let mut p = program(
            &[
                ("a", &["x"], reshape(&[32])),
                ("b", &["a"], reshape(&[4, 8])),
                ("turn", &["b"], transpose(&[1, 0])),
                ("c", &["b"], reshape(&[8, 4])),
                ("sum", &["turn", "c"], Op::Add),
            ],
            "sum",
        );
        super::run(&mut p);
        assert_eq!(steps(&p), ["a", "turn", "c", "sum"]);
        assert_eq!(p.steps[0].op, reshape(&[4, 8]));
        assert_eq!(p.steps[0].output_shape, Shape::from([4, 8]));
        let read = p.steps[0].output;
        assert_eq!([&p.steps[1].inputs, &p.steps[2].inputs], [&[read], &[read]]);
    }

    #[test]
    fn a_transposition_that_is_none_leaves_the_reshaping_behind_it() {
        let nodes: [(&str, &[&str], Op); 4] = [
            ("conv", &["x"], conv()),
            ("turn", &["conv"], transpose(&[0, 1, 2])),
            ("map", &["turn"], reshape(&[4, 4, 2])),
            ("pool", &["map"], max_pool()),
        ];
        let mut p = program(&nodes, "pool");
        crate::passes::run(&mut p);
        assert_eq!(steps(&p), ["conv", "map", "pool"]);
    }

    #[test]
    fn an_output_of_the_network_keeps_its_shape() {
        let nodes: [(&str, &[&str], Op); 2] = [
            ("turn", &["x"], transpose(&[1, 0, 2])),
            ("map", &["turn"], reshape(&[2, 4, 4])),
        ];
        let mut p = program(&nodes, "turn");
        super::run(&mut p);
        assert_eq!(p.steps[0].output_shape, Shape::from([4, 2, 4]));
    }
}
