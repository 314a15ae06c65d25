//! Operators over integers, as onnxruntime's QOperator form has them: each becomes the operator over numbers between `DequantizeLinear` and `QuantizeLinear`.

use std::collections::HashSet;

use crate::attributes::OnnxNode;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, data_type};

/// The domain of onnxruntime's own operators.
const MICROSOFT: &str = "com.microsoft";

/// Where an operator over integers has a value with its scale and zero point.
#[derive(Debug, Clone, Copy)]
struct Place {
    value: usize,
    scale: usize,
}

/// What an operator over integers computes.
struct Form {
    op_type: &'static str,
    /// Its values; of a layer the second is the weight.
    inputs: Vec<Place>,
    /// A bias of 32-bit integers, whose scale is the product of those of the values.
    bias: Option<usize>,
    /// The index of the scale of its output, before its zero point.
    output: usize,
    /// The axis of the weight along which it may have several scales.
    axis: i64,
}

/// The form of an operator; `None` where it is none over integers, or one that is not known here.
fn form(node: &NodeProto) -> Option<Form> {
    let place = |value: usize| Place {
        value,
        scale: value + 1,
    };
    let unary = |op_type| Form {
        op_type,
        inputs: vec![place(0)],
        bias: None,
        output: 3,
        axis: 0,
    };
    let binary = |op_type, bias, output, axis| Form {
        op_type,
        inputs: vec![place(0), place(3)],
        bias,
        output,
        axis,
    };
    let int = |name| OnnxNode(node).int(name).ok().flatten().unwrap_or(0);
    Some(match (node.domain.as_str(), node.op_type.as_str()) {
        ("" | "ai.onnx", "QLinearConv") => binary("Conv", Some(8), 6, 0),
        ("" | "ai.onnx", "QLinearMatMul") => binary("MatMul", None, 6, 1),
        (MICROSOFT, "QGemm") => Form {
            output: 7,
            ..binary("Gemm", Some(6), 7, i64::from(int("transB") == 0))
        },
        (MICROSOFT, "QLinearAdd") => binary("Add", None, 6, 0),
        (MICROSOFT, "QLinearMul") => binary("Mul", None, 6, 0),
        (MICROSOFT, "QLinearSigmoid") => unary("Sigmoid"),
        (MICROSOFT, "QLinearLeakyRelu") => unary("LeakyRelu"),
        (MICROSOFT, "QLinearAveragePool") if int("channels_last") == 0 => unary("AveragePool"),
        (MICROSOFT, "QLinearGlobalAveragePool") if int("channels_last") == 0 => {
            unary("GlobalAveragePool")
        }
        (MICROSOFT, "QLinearConcat") => Form {
            op_type: "Concat",
            inputs: (2..node.input.len()).step_by(3).map(place).collect(),
            bias: None,
            output: 0,
            axis: 0,
        },
        _ => return None,
    })
}

/// The graph with operators over numbers in the place of those over integers; `None` where it has none of these.
pub(super) fn as_pairs(graph: &GraphProto) -> Option<GraphProto> {
    let is_pair = |n: &NodeProto| {
        n.domain == MICROSOFT
            && ["QuantizeLinear", "DequantizeLinear"].contains(&n.op_type.as_str())
    };
    if !graph.node.iter().any(|n| form(n).is_some() || is_pair(n)) {
        return None;
    }
    let mut writer = Writer {
        names: names(graph),
        taken: 0,
        nodes: Vec::with_capacity(graph.node.len()),
        constants: Vec::new(),
    };
    for node in &graph.node {
        match form(node) {
            Some(form) => writer.rewrite(node, &form),
            // onnxruntime's are those of ONNX, of more types.
            None if is_pair(node) => writer.nodes.push(NodeProto {
                domain: String::new(),
                ..node.clone()
            }),
            None => writer.nodes.push(node.clone()),
        }
    }
    let mut initializer = graph.initializer.clone();
    initializer.append(&mut writer.constants);
    Some(GraphProto {
        node: writer.nodes,
        initializer,
        ..graph.clone()
    })
}

/// All names of values.
fn names(graph: &GraphProto) -> HashSet<String> {
    let of_nodes = graph
        .node
        .iter()
        .flat_map(|n| n.input.iter().chain(&n.output));
    let of_constants = graph.initializer.iter().map(|t| &t.name);
    let of_inputs = graph.input.iter().map(|i| &i.name);
    (of_nodes.chain(of_constants).chain(of_inputs))
        .cloned()
        .collect()
}

struct Writer {
    names: HashSet<String>,
    /// How many names were wanted that another value had.
    taken: usize,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Writer {
    fn rewrite(&mut self, node: &NodeProto, form: &Form) {
        let name = OnnxNode(node).name().to_owned();
        // Of many inputs each is named by itself: a long name of the node would be there as often.
        let of_input = if form.inputs.len() > 2 { "" } else { &name };
        let input = |i: usize| node.input.get(i).cloned().unwrap_or_default();
        let mut inputs = Vec::new();
        for (i, place) in form.inputs.iter().enumerate() {
            let [value, scale, zero] = [place.value, place.scale, place.scale + 1].map(input);
            let number = self.free(&value, "dequantised");
            let axis = if i == 0 { 0 } else { form.axis };
            let mut made = made(
                "DequantizeLinear",
                of_input,
                vec![value, scale, zero],
                &number,
            );
            made.attribute.push(int("axis", axis));
            self.nodes.push(made);
            inputs.push(number);
        }
        let alpha = (node.attribute.iter())
            .find(|a| a.name == "alpha" && form.op_type == "Gemm")
            .and_then(|a| a.f);
        if let Some(bias) = form.bias.map(input).filter(|name| !name.is_empty()) {
            let mut scale = self.product(
                &name,
                input(form.inputs[0].scale),
                input(form.inputs[1].scale),
            );
            if let Some(alpha) = alpha.filter(|a| *a != 1.0) {
                let factor = self.free(&name, "alpha");
                self.constants.push(TensorProto {
                    data_type: data_type::FLOAT,
                    float_data: vec![alpha],
                    name: factor.clone(),
                    ..TensorProto::default()
                });
                scale = self.product(&name, scale, factor);
            }
            let number = self.free(&bias, "dequantised");
            let mut made = made("DequantizeLinear", &name, vec![bias, scale], &number);
            made.attribute.push(int("axis", 0));
            self.nodes.push(made);
            inputs.push(number);
        }
        let of_kept = |a: &&AttributeProto| a.name != "channels_last";
        let output = node.output.first().cloned().unwrap_or_default();
        let [scale, zero] = [form.output, form.output + 1].map(input);
        // A QGemm without a scale of its output makes numbers.
        let number = match scale.is_empty() {
            true => output.clone(),
            false => self.free(&output, "number"),
        };
        self.nodes.push(NodeProto {
            attribute: node.attribute.iter().filter(of_kept).cloned().collect(),
            ..made(form.op_type, &name, inputs, &number)
        });
        if !scale.is_empty() {
            let inputs = vec![number, scale, zero];
            self.nodes
                .push(made("QuantizeLinear", &name, inputs, &output));
        }
    }

    /// The product of two scales.
    fn product(&mut self, name: &str, a: String, b: String) -> String {
        let scale = self.free(name, "scale");
        self.nodes.push(made("Mul", name, vec![a, b], &scale));
        scale
    }

    /// A name that no value has yet.
    fn free(&mut self, of: &str, part: &str) -> String {
        let wanted = format!("{of}.{part}");
        let mut name = wanted.clone();
        // One count for all, so that time is bounded whatever names a file has.
        while !self.names.insert(name.clone()) {
            self.taken += 1;
            name = format!("{wanted}.{}", self.taken);
        }
        name
    }
}

/// A node of the rewritten graph; errors name the node that it is of.
fn made(op_type: &str, name: &str, input: Vec<String>, output: &str) -> NodeProto {
    NodeProto {
        input,
        output: vec![output.to_owned()],
        name: name.to_owned(),
        op_type: op_type.to_owned(),
        ..NodeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: Some(value),
        ..AttributeProto::default()
    }
}
