//! A folder with one folder of PNG images per class.

use std::path::{Path, PathBuf};

use sparsevd_model::Shape;

use crate::{ArrayData, Dataset, FileType, FormatError, Pixels, read_png};

/// Names of the class folders, in the order of their labels.
pub(crate) fn classes(folder: &Path) -> Result<Vec<String>, FormatError> {
    let mut names = Vec::new();
    for entry in entries(folder)? {
        if entry.is_dir() {
            names.push(name_of(&entry));
        }
    }
    Ok(names)
}

/// All images of the class folders in `folder`; the label is the place of the class among the sorted names.
pub(crate) fn load(folder: &Path) -> Result<Dataset, FormatError> {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    let mut first: Option<(Vec<usize>, PathBuf)> = None;
    for (label, class) in classes(folder)?.iter().enumerate() {
        let label = u16::try_from(label)
            .map_err(|_| FormatError::invalid(folder, "class folders", "at most 65536", "more"))?;
        let class = folder.join(class);
        let before = labels.len();
        for file in entries(&class)? {
            let got = match file.is_dir() {
                true => Some("a folder".to_owned()),
                false => Some(FileType::of_file(&file)?)
                    .filter(|kind| *kind != FileType::Png)
                    .map(|kind| kind.instead_of_arrays(&file)),
            };
            if let Some(got) = got {
                let expected = "only PNG images";
                return Err(FormatError::invalid(&file, "class folder", expected, got));
            }
            let image = read_png(&file)?;
            let ArrayData::U8(values) = image.data else {
                return Err(FormatError::invalid(&file, "PNG", "bytes", "others"));
            };
            match &first {
                None => first = Some((image.shape, file)),
                Some((shape, of)) if *shape != image.shape => {
                    return Err(FormatError::invalid(
                        &file,
                        "image size",
                        format!("{} as {}", Shape(shape.clone()), of.display()),
                        Shape(image.shape).to_string(),
                    ));
                }
                Some(_) => {}
            }
            pixels.extend(values);
            labels.push(label);
        }
        if labels.len() == before {
            return Err(FormatError::invalid(
                &class,
                "class folder",
                "at least one PNG image",
                "none",
            ));
        }
    }
    let Some((shape, _)) = first else {
        return Err(FormatError::invalid(
            folder,
            "dataset folder",
            "MNIST's IDX files, or one folder of PNG images per class",
            "neither",
        ));
    };
    Ok(Dataset {
        pixels: Pixels::U8(pixels),
        shape: Shape(shape),
        labels,
    })
}

/// Sorted entries of a folder without hidden ones.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let failed = |e| FormatError::io(folder, "read", e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !name_of(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
