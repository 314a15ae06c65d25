//! The fields that nodes have in the JSON of a graph.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::limits;
use crate::ops::Attribute;
use crate::{Node, Op};

/// Fields of an operator beside `op`, as serde reads them.
fn of_op(op: &Op) -> Vec<&'static str> {
    let mut fields = Vec::new();
    op.clone()
        .visit_attributes(&mut |name, attribute| match attribute {
            Attribute::Window(_) => {
                fields.extend(["kernel_shape", "strides", "pads", "dilations"]);
            }
            _ => fields.push(name),
        });
    fields
}

/// A node with the names of all fields that its JSON has: one that is not known would otherwise be ignored, and the network
/// would compute something else than its author meant.
#[derive(Deserialize)]
pub(crate) struct Fields {
    name: String,
    #[serde(deserialize_with = "limits::node_inputs")]
    inputs: Vec<String>,
    #[serde(flatten)]
    op: Op,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

impl TryFrom<Fields> for Node {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let known = [&["op"], of_op(&fields.op).as_slice()].concat();
        if let Some(unknown) = fields.others.keys().find(|f| !known.contains(&f.as_str())) {
            return Err(format!(
                "node `{}` ({}): unknown field `{unknown}`, expected only name, inputs, {}",
                fields.name,
                fields.op.name(),
                known.join(", ")
            ));
        }
        Ok(Self {
            name: fields.name,
            inputs: fields.inputs,
            op: fields.op,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A node of each operator, with every field.
    fn nodes() -> Vec<Value> {
        let window = json!({"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [2, 2]});
        let with_window = |fields: Value| {
            let mut all = fields;
            let window = window.as_object().unwrap().clone();
            all.as_object_mut().unwrap().extend(window);
            all
        };
        let mut nodes = vec![
            json!({"op": "Linear", "weight": "w", "bias": "b"}),
            with_window(json!({"op": "Conv", "weight": "w", "bias": "b", "groups": 2})),
            json!({"op": "BatchNormalization", "scale": "s", "bias": "b", "mean": "m", "variance": "v", "epsilon": 0.5}),
            json!({"op": "LayerNormalization", "scale": "s", "bias": "b", "dimensions": 2, "epsilon": 0.5}),
            json!({"op": "Clip", "min": 0.0, "max": 6.0}),
            json!({"op": "LeakyRelu", "alpha": 0.5}),
            json!({"op": "PRelu", "slope": "a"}),
            json!({"op": "Reshape", "shape": [2, 3]}),
            json!({"op": "Transpose", "perm": [1, 0]}),
            json!({"op": "Embedding", "table": "t"}),
            json!({"op": "Attention", "heads": 2}),
            json!({"op": "ReduceMean", "axis": 1}),
            json!({"op": "HardSigmoid", "alpha": 0.5, "beta": 0.5}),
            json!({"op": "Gelu", "approximate": "tanh"}),
            with_window(json!({"op": "MaxPool"})),
            with_window(json!({"op": "AveragePool"})),
            json!({"op": "Pad", "pads": [1, 1, 1, 1], "value": 0.5}),
            json!({"op": "Concat", "axis": 1}),
            json!({"op": "Softmax", "axis": 1}),
            json!({"op": "LogSoftmax", "axis": 1}),
            json!({"op": "Slice", "axis": 1, "start": 1, "end": 2}),
            json!({"op": "Elu", "alpha": 0.5}),
            json!({"op": "Expand", "shape": [2, 3]}),
        ];
        let plain = [
            "Relu",
            "Sigmoid",
            "HardSwish",
            "Tanh",
            "GlobalAveragePool",
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Flatten",
            "L2Normalize",
            "Softplus",
            "Exp",
            "Log",
            "Sqrt",
            "Erf",
            "Max",
            "Min",
            "MatMul",
        ];
        nodes.extend(plain.map(|op| json!({"op": op})));
        for node in &mut nodes {
            node["name"] = json!("n");
            node["inputs"] = json!(["x"]);
        }
        nodes
    }

    #[test]
    fn every_field_is_read_and_written_and_no_other_is_known() {
        for json in nodes() {
            let node: Node = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(&node).unwrap(), json);
            let mut fields: Vec<&str> = json
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            let mut known = [&["op", "name", "inputs"], of_op(&node.op).as_slice()].concat();
            fields.sort_unstable();
            known.sort_unstable();
            assert_eq!(fields, known);
        }
    }

    #[test]
    fn an_unknown_field_is_an_error_that_lists_the_known_ones() {
        for unknown in ["eps", "stride", "padding", "dilation", "Weight"] {
            for mut json in nodes() {
                json[unknown] = json!(1);
                let error = serde_json::from_value::<Node>(json.clone())
                    .unwrap_err()
                    .to_string();
                let op = json["op"].as_str().unwrap();
                let names = format!(
                    "node `n` ({op}): unknown field `{unknown}`, expected only name, inputs, op"
                );
                assert!(error.contains(&names), "{error}");
            }
        }
    }
}
