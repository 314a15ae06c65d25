//! Texts that people or the programs write.

use std::path::Path;

use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{Report, RunRecord};
use sparsevd_kernels::Isa;
use sparsevd_pipeline::KernelCosts;
use sparsevd_report::Page;

use crate::place::{Place, check_error};

thread_local! {
    static PLACE: Place = Place::new();
}

/// A recipe is written and read again.
pub(crate) fn recipe(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let source = Path::new("fuzz.toml");
    match Recipe::from_toml(text, source) {
        Ok(recipe) => {
            let again = Recipe::from_toml(&recipe.to_toml(), source);
            assert_eq!(again.expect("a recipe that was written"), recipe);
        }
        Err(error) => check_error(&error),
    }
}

/// A report becomes a page.
pub(crate) fn report(bytes: &[u8]) {
    let read = PLACE.with(|place| Report::read(&place.write("report.json", bytes)));
    match read {
        Ok(report) => {
            let _ = report.to_string();
            match Page::new(&report).to_html() {
                Ok(page) => assert!(page.trim_end().ends_with("</html>")),
                Err(error) => check_error(&error),
            }
        }
        Err(error) => check_error(&error),
    }
}

/// The record of a run is written and read again.
pub(crate) fn run_record(bytes: &[u8]) {
    PLACE.with(|place| {
        place.write("run.json", bytes);
        match RunRecord::read(place.path()) {
            Ok(record) => {
                record.write(place.path()).expect("a record that was read");
                let again = RunRecord::read(place.path()).expect("a record that was written");
                assert_eq!(again, record);
            }
            Err(error) => check_error(&error),
        }
    });
}

/// Costs of kernels are times.
pub(crate) fn costs(bytes: &[u8]) {
    let read = PLACE.with(|place| KernelCosts::read(&place.write("tune.json", bytes)));
    match read {
        Ok(costs) => {
            for costs in Isa::available()
                .into_iter()
                .filter_map(|isa| costs.get(isa))
            {
                assert!(costs.are_times());
            }
        }
        Err(error) => check_error(&error),
    }
}
