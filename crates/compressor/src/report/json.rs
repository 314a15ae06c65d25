//! JSON files that are written here and read again.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use sparsevd_format::{FormatError, MAX_JSON, read_text};

use super::SCHEMA;
use crate::error::CompressError;

/// The part that every layout has.
#[derive(Deserialize)]
struct Versioned {
    schema: u32,
}

/// Reads a number that is no number too, which JSON writes as null.
pub(crate) fn number<'d, D: Deserializer<'d>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Reads a JSON file of this version's [`SCHEMA`]; `None` where there is no file. `what` it should be is for messages.
///
/// # Errors
/// [`CompressError::Report`] with a file that cannot be read, is of another schema, or is something else.
pub fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Option<T>, CompressError> {
    let fail = |what: String| CompressError::Report {
        path: path.to_owned(),
        what,
    };
    let text = match read_text(path, MAX_JSON) {
        Ok(text) => text,
        Err(FormatError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(e) => return Err(fail(e.without_path())),
    };
    let other = |e| fail(format!("expected {what}: {e}"));
    // First, as another schema has other fields.
    let Versioned { schema } = serde_json::from_str(&text).map_err(other)?;
    if schema != SCHEMA {
        return Err(fail(format!("expected schema {SCHEMA}, got {schema}")));
    }
    serde_json::from_str(&text).map(Some).map_err(other)
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Record {
        schema: u32,
        ratio: f64,
    }

    #[test]
    fn what_is_no_number_is_null_and_is_read() {
        #[derive(Serialize, Deserialize)]
        struct Drop {
            #[serde(deserialize_with = "number")]
            drop: f64,
        }
        let text = serde_json::to_string(&Drop { drop: f64::NAN }).unwrap();
        assert_eq!(text, r#"{"drop":null}"#);
        let read: Drop = serde_json::from_str(&text).unwrap();
        assert!(read.drop.is_nan());
        let read: Drop = serde_json::from_str(r#"{"drop":-0.5}"#).unwrap();
        assert_eq!(read.drop, -0.5);
        assert!(serde_json::from_str::<Drop>("{}").is_err());
    }

    #[test]
    fn numbers_are_read_to_the_last_bit_and_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let read = || read_json::<Record>(&path, "a record").map_err(|e| e.to_string());
        assert_eq!(read(), Ok(None));
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read()
        };
        let record = of(r#"{"schema": 1, "ratio": 22.786217117450906}"#);
        let record = record.unwrap().unwrap();
        assert_eq!(record.ratio.to_bits(), 22.786_217_117_450_906_f64.to_bits());
        assert_eq!(record.schema, SCHEMA);
        for (text, words) in [
            (r#"{"schema": 2}"#, "a.json: expected schema 1, got 2"),
            (
                r#"{"schema": 1}"#,
                "expected a record: missing field `ratio`",
            ),
            ("{}", "expected a record: missing field `schema`"),
            ("[", "expected a record: "),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
