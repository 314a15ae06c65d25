//! Any target of `sparsevd-fuzzing`, that which `SPARSEVD_TARGET` names: one program is built in a fraction of the time of one for each.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sparsevd_fuzzing::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("SPARSEVD_TARGET").expect("SPARSEVD_TARGET names a target");
    Target::by_name(&name).expect("SPARSEVD_TARGET names a target")
});

fuzz_target!(|bytes: &[u8]| TARGET.run(bytes));
