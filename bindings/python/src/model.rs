//! A network from a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use sparsevd_format::{CsrProfile, GraphSource, LoadedNetwork, ValueType};
use sparsevd_kernels::Isa;
use sparsevd_model::{Dense, Dim, Graph, Network, Shape, TensorType, Weights};
use sparsevd_onnx::{ImportOptions, InputShape, load_with};
use sparsevd_pipeline::{Conversion, Inspection, KernelCosts, ModelFile, PipelineError};
use sparsevd_runtime::{Int8Mode, Plan as RuntimePlan, PlanOptions, WeightMode, WeightType};

use crate::array::{Operand, in_c_order};
use crate::error::{class, detached, input_error, setting_error, user_warning};
use crate::json;
use crate::plan::{Plan, Planned};
use crate::session::Session;

/// A network: its graph, its weights, and what is known of its file. It does not change.
#[pyclass(frozen, module = "sparsevd")]
pub struct Model {
    pub loaded: Arc<LoadedNetwork>,
    /// The file that it was read from.
    pub file: Option<ModelFile>,
}

/// Reads a network from a file, whose content decides what it is.
#[pyfunction]
#[pyo3(signature = (path, *, network=None, shapes=None))]
pub fn load(
    py: Python<'_>,
    path: PathBuf,
    network: Option<String>,
    shapes: Option<&Bound<'_, PyDict>>,
) -> PyResult<Model> {
    let options = ImportOptions {
        shapes: shapes.map(input_shapes).transpose()?.unwrap_or_default(),
    };
    let source = match &network {
        Some(name) => GraphSource::Named(name.clone()),
        None => GraphSource::Auto,
    };
    let loaded = detached(py, || load_with(&path, &source, &options))?;
    for warning in &loaded.warnings {
        user_warning(py, &format!("{}: {warning}", path.display()))?;
    }
    let file = ModelFile {
        path,
        graph: network,
    };
    Ok(Model {
        loaded: Arc::new(loaded),
        file: Some(file),
    })
}

/// A network of a graph, as `docs/format.md` has it, and its tensors.
#[pyfunction]
pub fn network(py: Python<'_>, graph: &str, tensors: &Bound<'_, PyDict>) -> PyResult<Model> {
    let graph: Graph = serde_json::from_str(graph)
        .map_err(|e| class::ModelError::new_err(format!("graph: {e}")))?;
    let mut all = BTreeMap::new();
    for (name, array) in tensors.iter() {
        let name: String = name.extract()?;
        let what = Operand {
            kind: "tensor",
            name: &name,
        };
        let array = in_c_order(what, &array)?;
        let shape = Shape(array.shape().to_vec());
        let values = array.as_slice()?.to_vec();
        let dense = Dense::new(shape, values);
        all.insert(name, Weights::Dense(dense));
    }
    let network = detached(py, || Network::new(graph, all))?;
    Ok(Model::of(LoadedNetwork {
        network,
        notes: vec![],
        warnings: vec![],
        metadata: BTreeMap::new(),
    }))
}

/// Shapes of inputs from a dictionary.
fn input_shapes(shapes: &Bound<'_, PyDict>) -> PyResult<Vec<InputShape>> {
    let shape = |(name, dims): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let name: String = name.extract()?;
        match dims.extract::<Vec<usize>>() {
            Ok(dims) if !dims.is_empty() && !dims.contains(&0) => Ok(InputShape {
                name: Some(name),
                dims,
            }),
            _ => Err(input_error(
                format_args!("shape of input `{name}`"),
                "sizes of 1 or more",
                dims.repr()?.to_string(),
            )),
        }
    };
    shapes.iter().map(shape).collect()
}

/// Most threads that nothing else is said of: one for each core.
fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Model {
    pub fn of(loaded: LoadedNetwork) -> Self {
        Self {
            loaded: Arc::new(loaded),
            file: None,
        }
    }

    fn planned(
        &self,
        py: Python<'_>,
        weights: WeightMode,
        [batch, length, threads]: [usize; 3],
        values: WeightType,
    ) -> PyResult<RuntimePlan> {
        detached(py, || -> Result<RuntimePlan, PipelineError> {
            let isa = Isa::from_env()?;
            let options = PlanOptions {
                weights,
                isa,
                threads,
                batch,
                length,
                values,
                int8: Int8Mode::default(),
                costs: KernelCosts::of(isa)?,
            };
            Ok(RuntimePlan::new(&self.loaded.network, &options)?)
        })
    }

    /// Types of values by their names.
    fn types<'py>(
        py: Python<'py>,
        types: impl Iterator<Item = (String, TensorType)>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, of) in types {
            let dims: PyResult<Vec<Bound<'py, PyAny>>> = of
                .dims
                .into_iter()
                .map(|dim| match dim {
                    Dim::Known(n) => n.into_bound_py_any(py),
                    Dim::Free(symbol) => symbol.into_bound_py_any(py),
                })
                .collect();
            dict.set_item(name, PyTuple::new(py, dims?)?)?;
        }
        Ok(dict)
    }
}

#[pymethods]
impl Model {
    /// Name of the network.
    #[getter]
    fn name(&self) -> &str {
        &self.loaded.network.graph.name
    }

    /// Shape of one sample of each input, by its name; a free dimension is a word.
    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let inputs = self.loaded.network.graph.inputs.iter();
        Self::types(py, inputs.map(|i| (i.name.clone(), i.tensor_type())))
    }

    /// Shape of one sample of each output, by its name.
    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let network = &self.loaded.network;
        let types = network
            .types()
            .map_err(|e| class::ModelError::new_err(e.to_string()))?;
        let outputs = network.graph.outputs.iter();
        let typed = outputs.filter_map(|name| Some((name.clone(), types.get(name.as_str())?)));
        Self::types(py, typed.map(|(name, of)| (name, of.clone())))
    }

    /// Weights of the original network, zeros included, biases apart.
    #[getter]
    fn weights(&self) -> usize {
        self.loaded.network.original_weights()
    }

    /// Weights that are not zero.
    #[getter]
    fn nonzeros(&self) -> usize {
        self.loaded.network.nonzeros()
    }

    /// What was guessed when the file was read, and may be wrong.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.loaded.warnings.clone()
    }

    /// How the graph was found, and which tensors were dropped.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.loaded.notes.clone()
    }

    /// Metadata of the file that the format gives no meaning to.
    #[getter]
    fn metadata(&self) -> BTreeMap<String, String> {
        self.loaded.metadata.clone()
    }

    /// The kernels that a session would run.
    #[pyo3(signature = (*, batch=1, length=1, threads=1, dense=false, values="f32"))]
    fn plan(
        &self,
        py: Python<'_>,
        batch: usize,
        length: usize,
        threads: usize,
        dense: bool,
        values: &str,
    ) -> PyResult<Plan> {
        let weights = mode(dense);
        let sizes = [batch, length, threads];
        let plan = self.planned(py, weights, sizes, weight_type(values)?)?;
        Ok(Plan(Planned::Alone(Box::new(plan))))
    }

    /// A session to run the network with.
    #[pyo3(signature = (*, threads=None, batch=1, length=1, dense=false, values="f32"))]
    fn session(
        &self,
        py: Python<'_>,
        threads: Option<usize>,
        batch: usize,
        length: usize,
        dense: bool,
        values: &str,
    ) -> PyResult<Session> {
        let threads = threads.unwrap_or_else(all_cores);
        let sizes = [batch, length, threads];
        let plan = self.planned(py, mode(dense), sizes, weight_type(values)?)?;
        Session::new(py, plan, threads)
    }

    /// Pixels of 0 to 255, or rows of a table, as the network's input.
    fn preprocess<'py>(
        &self,
        py: Python<'py>,
        pixels: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        crate::preprocess::preprocess(py, &self.loaded.network, pixels)
    }

    /// What `compress inspect --json` prints.
    fn inspect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Some(file) = &self.file else {
            return Err(setting_error(
                "inspect",
                "a model that was read from a file",
                "one without; save it and load the file",
            ));
        };
        let loaded = LoadedNetwork::clone(&self.loaded);
        let inspection = detached(py, || Inspection::new(&file.path, loaded))?;
        json::to_python(py, &inspection)
    }

    /// Writes the network to a file, whose ending says in which form. Returns its size in bytes.
    #[pyo3(signature = (path, *, values="f32", profile="compact", dense=false, grid=false, overwrite=false))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn save(
        &self,
        py: Python<'_>,
        path: PathBuf,
        values: &str,
        profile: &str,
        dense: bool,
        grid: bool,
        overwrite: bool,
    ) -> PyResult<u64> {
        let conversion = Conversion {
            dense,
            values: value_type(values)?,
            profile: csr_profile(profile)?,
            grid,
            ..Conversion::default()
        };
        self.write(py, conversion, path, overwrite)
    }

    /// Writes the network as ONNX. Returns the size of the file in bytes.
    #[pyo3(signature = (path, *, sparse_initializers=false, overwrite=false))]
    fn to_onnx(
        &self,
        py: Python<'_>,
        path: PathBuf,
        sparse_initializers: bool,
        overwrite: bool,
    ) -> PyResult<u64> {
        if path
            .extension()
            .is_none_or(|e| !e.eq_ignore_ascii_case("onnx"))
        {
            return Err(setting_error(
                path.display(),
                "a name that ends in .onnx",
                "another",
            ));
        }
        let conversion = Conversion {
            sparse_initializers,
            dense: !sparse_initializers,
            ..Conversion::default()
        };
        self.write(py, conversion, path, overwrite)
    }

    /// The weights and biases by the names of their tensors, dense, in the shapes that they have now.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let network = &self.loaded.network;
        tensors(py, network.tensors.iter())
    }

    /// The same in the shapes that they had before units left, with zeros for what left.
    fn original_tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let padded = detached(py, || self.loaded.network.in_original_shapes())?;
        tensors(py, padded.tensors.iter())
    }

    fn __repr__(&self) -> String {
        let network = &self.loaded.network;
        format!(
            "<sparsevd.Model {}: {} of {} weights>",
            network.graph.name,
            network.nonzeros(),
            network.original_weights()
        )
    }
}

impl Model {
    fn write(
        &self,
        py: Python<'_>,
        conversion: Conversion,
        path: PathBuf,
        overwrite: bool,
    ) -> PyResult<u64> {
        let loaded = LoadedNetwork::clone(&self.loaded);
        let written = detached(py, || -> Result<_, PipelineError> {
            sparsevd_format::check_writable(&path, overwrite)?;
            conversion.write(loaded, &path)
        })?;
        if let Some(layers) = written.left_out() {
            user_warning(py, &format!("{} is without the {layers}", path.display()))?;
        }
        Ok(written.bytes)
    }
}

/// Tensors as arrays by their names.
fn tensors<'py, 't>(
    py: Python<'py>,
    all: impl Iterator<Item = (&'t String, &'t Weights)>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, tensor) in all {
        let shape = tensor.shape();
        let array = PyArrayDyn::<f32>::zeros(py, shape.dims(), false);
        let dense = tensor.to_dense();
        if let Ok(out) = array.readwrite().as_slice_mut() {
            out.copy_from_slice(&dense.values);
        }
        debug_assert_eq!(array.shape(), shape.dims());
        dict.set_item(name, array)?;
    }
    Ok(dict)
}

fn mode(dense: bool) -> WeightMode {
    match dense {
        true => WeightMode::Dense,
        false => WeightMode::Sparse,
    }
}

/// The value of an option by its name.
fn named<T: Copy>(option: &str, values: &[(&str, T)], name: &str) -> PyResult<T> {
    let found = values.iter().find(|(n, _)| *n == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|(n, _)| *n).collect();
        setting_error(option, names.join(", "), format!("`{name}`"))
    })
}

fn weight_type(name: &str) -> PyResult<WeightType> {
    use WeightType::{Auto, Bf16, F16, F32, I8};
    let values = [
        ("f32", F32),
        ("bf16", Bf16),
        ("f16", F16),
        ("i8", I8),
        ("auto", Auto),
    ];
    named("values", &values, name)
}

/// The element type of the weights in a file.
pub fn value_type(name: &str) -> PyResult<ValueType> {
    use ValueType::{Bf16, F16, F32, I8};
    let values = [("f32", F32), ("f16", F16), ("bf16", Bf16), ("i8", I8)];
    named("values", &values, name)
}

/// How sparse weights are stored in a file.
pub fn csr_profile(name: &str) -> PyResult<CsrProfile> {
    use CsrProfile::{Bitmask, Compact, Interop};
    let profiles = [
        ("compact", Compact),
        ("interop", Interop),
        ("bitmask", Bitmask),
    ];
    named("profile", &profiles, name)
}
