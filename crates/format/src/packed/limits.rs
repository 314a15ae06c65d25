//! What reading a packed file may cost.

/// What a file may make a reader allocate and compute; more is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Nodes of the graph, its inputs and its outputs, each.
    pub nodes: usize,
    /// Elements of the dense shape of a tensor or of a value that flows through the graph.
    pub elements: usize,
    /// Elements of all tensors that are stored dense.
    pub dense_elements: usize,
    /// Non-zeros of all tensors.
    pub nonzeros: usize,
    /// Elements, zeros included, of all weights of a file of the small profile: each takes some 50 ns.
    pub small_cells: usize,
}

impl Limits {
    /// No limits: a writer may pack any network.
    pub(super) fn for_writing() -> Self {
        Self {
            nodes: usize::MAX,
            elements: usize::MAX,
            dense_elements: usize::MAX,
            nonzeros: usize::MAX,
            small_cells: usize::MAX,
        }
    }
}

impl Default for Limits {
    /// Enough for networks of some 2^28 weights stored; a hostile file takes seconds and a gigabyte at most.
    fn default() -> Self {
        Self {
            nodes: 1 << 14,
            elements: 1 << 32,
            dense_elements: 1 << 28,
            nonzeros: 1 << 27,
            small_cells: 1 << 24,
        }
    }
}
