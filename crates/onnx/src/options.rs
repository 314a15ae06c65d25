//! What a caller says about a file before it is read.

use std::fmt;
use std::str::FromStr;

use crate::node_error::Invalid;

/// How an ONNX file is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportOptions {
    /// Shapes of inputs, for dimensions that the file leaves open.
    pub shapes: Vec<InputShape>,
}

/// The shape of an input: `NAME=N,C,H,W`, or without the name where there is one input, and without the batch `N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputShape {
    /// The input's name; `None` is the only input.
    pub name: Option<String>,
    /// Its dimensions, with or without the batch.
    pub dims: Vec<usize>,
}

impl FromStr for InputShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Names may have equals signs; sizes have none.
        let (name, sizes) = match text.rsplit_once('=') {
            Some((name, sizes)) => (Some(name.to_owned()), sizes),
            None => (None, text),
        };
        let size = |s: &str| match s.trim().parse::<usize>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(format!(
                "expected NAME=N,C,H,W or C,H,W with sizes of 1 or more, got `{s}`"
            )),
        };
        let dims = sizes.split(',').map(size).collect::<Result<_, _>>()?;
        Ok(Self { name, dims })
    }
}

impl fmt::Display for InputShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.dims.iter().map(usize::to_string).collect();
        match &self.name {
            Some(name) => write!(f, "{name}={}", dims.join(",")),
            None => f.write_str(&dims.join(",")),
        }
    }
}

impl ImportOptions {
    /// Checks that every shape is for one of the inputs, and has a name where there are several.
    pub(crate) fn check<'n>(&self, inputs: impl Iterator<Item = &'n str>) -> Result<(), Invalid> {
        let inputs: Vec<&str> = inputs.collect();
        for shape in &self.shapes {
            let fits = match &shape.name {
                Some(name) => inputs.contains(&name.as_str()),
                None => inputs.len() == 1,
            };
            if !fits {
                let names: Vec<String> = inputs.iter().map(|n| format!("`{n}`")).collect();
                return Err(Invalid::new(
                    "--shape",
                    format!(
                        "NAME=N,C,H,W for an input of the file ({})",
                        names.join(", ")
                    ),
                    format!("`{shape}`"),
                ));
            }
        }
        Ok(())
    }

    /// The shape for an input; the last one counts.
    pub(crate) fn of(&self, input: &str) -> Option<&InputShape> {
        let is_for = |s: &&InputShape| s.name.as_deref().is_none_or(|name| name == input);
        self.shapes.iter().rev().find(is_for)
    }
}

impl InputShape {
    /// All dimensions of an input that the file declares; where it declares none, these are all with the batch.
    pub(crate) fn over(
        &self,
        what: &str,
        declared: Option<&[Option<usize>]>,
    ) -> Result<Vec<Option<usize>>, Invalid> {
        let given: Vec<Option<usize>> = self.dims.iter().copied().map(Some).collect();
        let Some(declared) = declared else {
            return Ok(given);
        };
        let given = if given.len() + 1 == declared.len() {
            [&declared[..1], &given].concat()
        } else {
            given
        };
        // Any number of samples may run, whatever size of the batch is declared.
        let fits = given.len() == declared.len()
            && (declared.iter().zip(&given).skip(1)).all(|(d, g)| d.is_none() || d == g);
        if !fits {
            let size = |d: &Option<usize>| d.map_or("?".into(), |n| n.to_string());
            let declared: Vec<String> = declared.iter().map(size).collect();
            return Err(Invalid::new(
                format!("--shape for {what}"),
                format!(
                    "sizes for the dimensions [{}] of the file",
                    declared.join(", ")
                ),
                format!("`{self}`"),
            ));
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_a_name_or_none() {
        let parse = |text: &str| text.parse::<InputShape>();
        let shape = parse("in=put=1,3,8,9").unwrap();
        assert_eq!(
            (shape.name.as_deref(), &shape.dims[..]),
            (Some("in=put"), &[1, 3, 8, 9][..])
        );
        assert_eq!(shape.to_string(), "in=put=1,3,8,9");
        assert_eq!(parse("3,8,9").unwrap().dims, [3, 8, 9]);
        for bad in ["", "x=", "x=3,,4", "x=0,3", "x=N,3", "x=-1,3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shape_must_fit_what_the_file_declares() {
        let over = |text: &str| {
            let shape: InputShape = text.parse().unwrap();
            shape.over("input `x`", Some(&[None, Some(3), None])).ok()
        };
        assert_eq!(over("3,8"), Some(vec![None, Some(3), Some(8)]));
        assert_eq!(over("2,3,8"), Some(vec![Some(2), Some(3), Some(8)]));
        assert_eq!(over("4,8"), None);
        assert_eq!(over("8"), None);
        assert_eq!(over("1,2,3,8"), None);
    }
}
