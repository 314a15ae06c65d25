//! Changing a program step by step, in time that is linear in its steps.

use crate::program::{Program, Step, Value};

/// A program while a pass changes it. Who computes and who reads a value is known at once.
///
/// Steps keep their numbers until [`Rewrite::finish`]. A pass visits them in order, by [`Rewrite::visit`].
pub(crate) struct Rewrite<'p> {
    program: &'p mut Program,
    producers: Vec<Option<usize>>,
    consumers: Vec<usize>,
    /// For each value the one that is read in its place.
    replaced: Vec<Value>,
    removed: Vec<bool>,
}

impl<'p> Rewrite<'p> {
    pub fn new(program: &'p mut Program) -> Self {
        let values = program.values.len();
        let (mut producers, mut consumers) = (vec![None; values], vec![0; values]);
        for (i, step) in program.steps.iter().enumerate() {
            producers[step.output] = Some(i);
            for value in step.reads() {
                consumers[value] += 1;
            }
        }
        for output in &program.outputs {
            consumers[output.value] += 1;
        }
        Self {
            removed: vec![false; program.steps.len()],
            replaced: (0..values).collect(),
            program,
            producers,
            consumers,
        }
    }

    /// Number of steps, those that were removed included.
    pub fn len(&self) -> usize {
        self.program.steps.len()
    }

    /// The program, whose steps may read values that steps before them no longer compute, until they are visited.
    pub fn program(&self) -> &Program {
        self.program
    }

    /// A step that was visited, or is before one that was.
    pub fn step(&self, step: usize) -> &Step {
        &self.program.steps[step]
    }

    /// The same, to change what is no value.
    pub fn step_mut(&mut self, step: usize) -> &mut Step {
        &mut self.program.steps[step]
    }

    /// Lets a step read what is in place of its inputs after the steps before it were changed.
    pub fn visit(&mut self, step: usize) -> &Step {
        let step = &mut self.program.steps[step];
        for value in step.inputs.iter_mut().chain(&mut step.residual) {
            *value = self.replaced[*value];
        }
        step
    }

    /// How often steps read a value, plus one for each output that it is.
    pub fn consumers(&self, value: Value) -> usize {
        self.consumers[value]
    }

    /// Number of the step that computes a value; `None` for an input.
    pub fn producer(&self, value: Value) -> Option<usize> {
        self.producers[value]
    }

    /// Removes a step whose output has no consumer.
    pub fn remove(&mut self, step: usize) {
        self.removed[step] = true;
        let removed = &self.program.steps[step];
        self.producers[removed.output] = None;
        for value in removed.reads() {
            self.consumers[value] -= 1;
        }
    }

    /// Removes a step that was just visited. Its consumers then read `to`, an input of it.
    pub fn bypass(&mut self, step: usize, to: Value) {
        let from = self.program.steps[step].output;
        self.remove(step);
        self.replaced[from] = to;
        self.consumers[to] += std::mem::take(&mut self.consumers[from]);
    }

    /// Lets a step add a value, which is computed before it.
    pub fn add_residual(&mut self, step: usize, residual: Value) {
        self.consumers[residual] += 1;
        self.program.steps[step].residual = Some(residual);
    }

    /// Makes a later step, the only consumer of what step `first` computes, part of it: `first` then computes the output of that step.
    pub fn join(&mut self, first: usize, later: usize) {
        self.remove(later);
        let output = self.program.steps[later].output;
        let steps = &mut self.program.steps;
        self.producers[steps[first].output] = None;
        self.producers[output] = Some(first);
        steps[first].output = output;
    }

    /// Takes out the steps that were removed.
    pub fn finish(self) {
        let Self {
            program,
            replaced,
            removed,
            ..
        } = self;
        let mut removed = removed.into_iter();
        program.steps.retain(|_| !removed.next().unwrap_or(false));
        for step in &mut program.steps {
            for value in step.inputs.iter_mut().chain(&mut step.residual) {
                *value = replaced[*value];
            }
        }
        for output in &mut program.outputs {
            output.value = replaced[output.value];
        }
    }
}
