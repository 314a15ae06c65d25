//! Writes what fuzz targets begin with: `seeds FOLDER` makes a folder for each target there.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use sparsevd_fuzzing::TARGETS;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds FOLDER");
        return ExitCode::from(2);
    };
    for target in TARGETS {
        let folder = folder.join(target.name);
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            for (i, seed) in target.seeds().iter().enumerate() {
                std::fs::write(folder.join(format!("seed-{i}")), seed)?;
            }
            Ok(())
        };
        if let Err(error) = write() {
            eprintln!("{}: {error}", folder.display());
            return ExitCode::from(2);
        }
        println!("{}", target.name);
    }
    ExitCode::SUCCESS
}
