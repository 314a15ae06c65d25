//! Encoders of texts from folders as Hugging Face's libraries write them: `tests/golden/encoder`, changed in one place.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};
use sparsevd_format::{
    FormatError, GraphSource, WriteOptions, network_files, read_encoder, read_network,
    write_network,
};
use sparsevd_model::{DType, Network};
use tempfile::TempDir;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/encoder");

/// A copy of the golden folder.
fn copy() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    for name in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "model.safetensors",
    ] {
        fs::copy(Path::new(GOLDEN).join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn edit(folder: &TempDir, file: &str, edit: impl FnOnce(&mut Value)) {
    let path = folder.path().join(file);
    let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(&path, value.to_string()).unwrap();
}

/// Names, shapes and numbers of floating-point tensors.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn tensors() -> Tensors {
    let bytes = fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = file.tensors().into_iter();
    let floats = floats.filter(|(_, tensor)| tensor.dtype() == Dtype::F32);
    let numbers = |data: &[u8]| {
        let each = data.chunks_exact(4);
        each.map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    floats
        .map(|(name, t)| (name, (t.shape().to_vec(), numbers(t.data()))))
        .collect()
}

fn write(folder: &TempDir, tensors: &Tensors) {
    let bytes: BTreeMap<&String, Vec<u8>> = (tensors.iter())
        .map(|(name, (_, v))| (name, v.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap();
        (name.as_str(), view)
    });
    let file = serialize(views, None).unwrap();
    fs::write(folder.path().join("model.safetensors"), file).unwrap();
}

fn network(folder: &TempDir) -> Network {
    read_encoder(folder.path()).unwrap().loaded.network
}

/// The numbers of the tensors in the order in which the graph reads them.
fn numbers(network: &Network) -> Vec<Vec<f32>> {
    let names = network.graph.nodes.iter().flat_map(|n| n.op.tensors());
    names
        .map(|name| network.tensors[name].to_dense().values)
        .collect()
}

#[test]
fn the_golden_encoder_is_read_with_the_names_of_its_file() {
    let encoder = read_encoder(GOLDEN).unwrap();
    assert_eq!((encoder.longest, encoder.is_pooled), (20, true));
    let notes = encoder.loaded.notes.join("\n");
    for dropped in ["pooler.dense.weight", "embeddings.position_ids"] {
        assert!(notes.contains(dropped), "{notes}");
    }
    assert!(!notes.contains("token_type"), "{notes}");
    let network = &encoder.loaded.network;
    let types = network.types().unwrap();
    for (input, rows) in [("input_ids", 22), ("position_ids", 24)] {
        assert_eq!(types[input].to_string(), "i64 [length]");
        assert_eq!(types[input].dtype, DType::I64);
        assert_eq!(network.ids()[input], rows);
    }
    assert_eq!(network.graph.outputs, ["embedding"]);
    assert_eq!(types["embedding"].to_string(), "[16]");
    let file = tensors();
    for (name, tensor) in &network.tensors {
        let (shape, values) = &file[name];
        let tensor = tensor.to_dense();
        assert_eq!(tensor.shape.dims(), shape, "{name}");
        if name != "embeddings.position_embeddings.weight" {
            assert_eq!(&tensor.values, values, "{name}");
            continue;
        }
        let types = &file["embeddings.token_type_embeddings.weight"].1;
        for (i, (got, position)) in tensor.values.iter().zip(values).enumerate() {
            assert_eq!(*got, position + types[i % 16]);
        }
    }
    // Whatever reads networks reads it too.
    assert_eq!(
        read_network(GOLDEN, &GraphSource::Auto).unwrap().network,
        *network
    );
    let files = network_files(GOLDEN).unwrap();
    assert_eq!(files, [Path::new(GOLDEN).join("model.safetensors")]);
}

#[test]
fn other_kinds_are_the_same_network_under_other_names() {
    let expected = numbers(&read_encoder(GOLDEN).unwrap().loaded.network);
    // RoBERTa's positions begin behind that of the padding, which is number 3 here.
    let folder = copy();
    edit(&folder, "config.json", |c| {
        c["model_type"] = "xlm-roberta".into();
        c["pad_token_id"] = 3.into();
        c["max_position_embeddings"] = 28.into();
    });
    let renamed = tensors()
        .into_iter()
        .map(|(name, (mut shape, mut values))| {
            if name.contains("position_embeddings") {
                shape[0] += 4;
                values.splice(0..0, [9.0; 4 * 16]);
            }
            (format!("roberta.{name}"), (shape, values))
        });
    write(&folder, &renamed.collect());
    assert_eq!(numbers(&network(&folder)), expected);
    assert_eq!(read_encoder(folder.path()).unwrap().longest, 20);

    // DistilBERT has no token types.
    let folder = copy();
    edit(&folder, "config.json", |c| {
        *c = json!({
            "model_type": "distilbert", "activation": "gelu", "dim": 16, "hidden_dim": 24, "n_heads": 2, "n_layers": 2,
            "vocab_size": 22, "max_position_embeddings": 24,
        });
    });
    let mut all = tensors();
    let types = all.remove("embeddings.token_type_embeddings.weight");
    let types = types.unwrap().1;
    let rename = |name: &str| {
        let pairs = [
            ("encoder.layer", "transformer.layer"),
            ("attention.self.query", "attention.q_lin"),
            ("attention.self.key", "attention.k_lin"),
            ("attention.self.value", "attention.v_lin"),
            ("attention.output.dense", "attention.out_lin"),
            ("attention.output.LayerNorm", "sa_layer_norm"),
            ("intermediate.dense", "ffn.lin1"),
            ("output.dense", "ffn.lin2"),
            ("output.LayerNorm", "output_layer_norm"),
        ];
        let mut name = name.to_owned();
        pairs.iter().for_each(|(a, b)| name = name.replace(a, b));
        name
    };
    let renamed = all.into_iter().map(|(name, (shape, mut values))| {
        if name.contains("position_embeddings") {
            let types = types[..16].iter().cycle();
            values.iter_mut().zip(types).for_each(|(v, t)| *v += t);
        }
        (rename(&name), (shape, values))
    });
    write(&folder, &renamed.collect());
    assert_eq!(numbers(&network(&folder)), expected);
}

#[test]
fn what_no_operator_computes_and_what_does_not_fit_is_named() {
    let error = |file: &str, change: &dyn Fn(&mut Value)| {
        let folder = copy();
        edit(&folder, file, change);
        let error: FormatError = read_encoder(folder.path()).unwrap_err();
        let text = error.to_string();
        let at = folder.path().to_string_lossy().into_owned();
        text.replace(&at, "DIR")
    };
    let set = |field: &'static str, value: Value| move |v: &mut Value| v[field] = value.clone();
    let config = |field, value| error("config.json", &set(field, value));
    assert_eq!(
        config("model_type", "mpnet".into()),
        "DIR/config.json: `model_type`: expected one of the encoders bert, roberta, xlm-roberta, distilbert, got `mpnet`"
    );
    assert_eq!(
        config("hidden_size", 32.into()),
        "DIR/1_Pooling/config.json: `word_embedding_dimension`: expected 32, the width of the encoder, got 16"
    );
    assert_eq!(
        config("intermediate_size", 25.into()),
        "DIR/model.safetensors: tensor `encoder.layer.0.intermediate.dense.weight`: shape: expected [25, 16], as config.json says, got [24, 16]"
    );
    assert_eq!(
        config("num_hidden_layers", 3.into()),
        "DIR/model.safetensors: tensor `encoder.layer.2.attention.self.query.weight`: tensor: expected [16, 16], as config.json says, \
         got no tensor of that name"
    );
    assert_eq!(
        config("num_hidden_layers", json!(1_u64 << 31)),
        "DIR/config.json: `num_hidden_layers`: expected at most 40, the number of tensors of the file, got 2147483648"
    );
    assert_eq!(
        config("num_attention_heads", 3.into()),
        "DIR/config.json: `num_attention_heads`: expected a number that divides hidden_size, 16, got 3"
    );
    for (field, value) in [
        ("vocab_size", json!(23)),
        ("max_position_embeddings", json!(23)),
        ("type_vocab_size", json!(1)),
    ] {
        let text = config(field, value);
        assert!(text.contains("embeddings.weight`: shape"), "{text}");
    }
    for (field, value, says) in [
        ("hidden_act", json!("silu"), "one of gelu"),
        (
            "position_embedding_type",
            json!("relative_key"),
            "`absolute`",
        ),
        ("layer_norm_eps", json!(-1.0), "at least 0"),
        ("vocab_size", json!(0), "a size from 1"),
        ("vocab_size", json!("many"), "a size from 1"),
        ("type_vocab_size", Value::Null, "got null"),
    ] {
        let text = config(field, value);
        assert!(text.contains(&format!("`{field}`: expected")), "{text}");
        assert!(text.contains(says), "{text}");
    }
    let missing = error("config.json", &|c| {
        c.as_object_mut().unwrap().remove("hidden_size");
    });
    assert!(missing.contains("`hidden_size`") && missing.contains("no such field"));

    let pooling = |field, value: Value| error("1_Pooling/config.json", &set(field, value));
    for (field, value, got) in [
        (
            "pooling_mode_cls_token",
            json!(true),
            "got `pooling_mode_cls_token`: true, `pooling_mode_mean_tokens`: true",
        ),
        ("pooling_mode_mean_tokens", json!(false), "got none"),
        (
            "pooling_mode_mean_tokens",
            json!(1),
            "got `pooling_mode_mean_tokens`: 1",
        ),
        (
            "pooling_mode_lasttoken",
            json!(true),
            "got `pooling_mode_lasttoken`: true, `pooling_mode_mean_tokens`: true",
        ),
    ] {
        let text = pooling(field, value);
        let expected = "pooling: expected true for one of `pooling_mode_mean_tokens`, `pooling_mode_cls_token` alone";
        assert!(text.contains(expected) && text.ends_with(got), "{text}");
    }
    let text = error("modules.json", &|m| m[2]["type"] = "models.Dense".into());
    assert!(text.ends_with("got Transformer, Pooling, Dense"), "{text}");
    let text = error("modules.json", &|m| m[1]["path"] = "../other".into());
    assert!(text.contains("got `../other`"), "{text}");
    let text = error("sentence_bert_config.json", &|c| {
        c["max_seq_length"] = 0.into()
    });
    assert!(text.contains("`max_seq_length`: expected"), "{text}");

    // Another kind is named wherever a network is read.
    let folder = copy();
    edit(&folder, "config.json", |c| c["model_type"] = "t5".into());
    let text = read_network(folder.path(), &GraphSource::Auto).unwrap_err();
    assert!(text.to_string().contains("got `t5`"), "{text}");
}

#[test]
fn without_modules_the_vectors_of_the_tokens_are_the_output() {
    let folder = copy();
    fs::remove_file(folder.path().join("modules.json")).unwrap();
    let encoder = read_encoder(folder.path()).unwrap();
    assert_eq!((encoder.longest, encoder.is_pooled), (24, false));
    let tokens = encoder.loaded.network;
    let types = tokens.types().unwrap();
    assert_eq!(
        types[tokens.graph.outputs[0].as_str()].to_string(),
        "[length, 16]"
    );
    // Without the normalisation, the mean.
    let folder = copy();
    edit(&folder, "modules.json", |m| {
        m.as_array_mut().unwrap().pop();
    });
    assert_eq!(network(&folder).graph.outputs, ["mean"]);
}

/// What `compress` writes can take the place of the dense file.
#[test]
fn a_file_with_a_graph_of_its_own_is_read_by_that() {
    let folder = copy();
    let mut changed = network(&folder);
    let name = "encoder.layer.0.intermediate.dense.weight";
    let mut weight = changed.tensors[name].to_dense();
    weight.values.iter_mut().step_by(2).for_each(|v| *v = 0.0);
    changed.tensors.insert(name.into(), weight.into());
    let path = folder.path().join("model.safetensors");
    write_network(&path, &changed, &WriteOptions::default()).unwrap();
    let encoder = read_encoder(folder.path()).unwrap();
    assert_eq!(numbers(&encoder.loaded.network), numbers(&changed));
    assert_eq!((encoder.longest, encoder.is_pooled), (20, true));
}
