//! Tables as CSV: features and targets, the split, and everything that is refused.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;

use sparsevd_format::{
    DataSplits, LoadedSamples, Pixels, RegressionSplits, TableOptions, load_data, load_samples,
    load_samples_with, read_table, standardise,
};
use sparsevd_model::{Column, Shape, Table};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn numbers(loaded: LoadedSamples) -> RegressionSplits {
    match loaded {
        LoadedSamples::Numbers(splits) => splits,
        other => panic!("expected a regression, got {other:?}"),
    }
}

fn classes(loaded: LoadedSamples) -> DataSplits {
    match loaded {
        LoadedSamples::Classes(splits) => splits,
        other => panic!("expected classes, got {other:?}"),
    }
}

fn column(name: &str, categories: &[&str]) -> Column {
    Column {
        name: name.into(),
        categories: categories.iter().map(|&c| c.into()).collect(),
    }
}

const HOUSES: &str = "\
area,heating,floors,price
50,gas,1,100.5
70.5,oil,2,150
60,gas,2,120
";

#[test]
fn numbers_are_features_and_words_are_one_feature_for_each_category() {
    let folder = Folder::new();
    let splits = numbers(load_samples(folder.write("houses.csv", HOUSES)).unwrap());
    assert_eq!(splits.test, None, "a fifth of three rows is none");
    let table = Table {
        columns: vec![
            column("area", &[]),
            column("heating", &["gas", "oil"]),
            column("floors", &[]),
        ],
        target: "price".into(),
        classes: None,
    };
    assert_eq!(splits.table, Some(table.clone()));
    let train = splits.train.unwrap();
    assert_eq!(*train.shape(), Shape::from([4]));
    let rows = vec![
        50.0, 1.0, 0.0, 1.0, 70.5, 0.0, 1.0, 2.0, 60.0, 1.0, 0.0, 2.0,
    ];
    assert_eq!(*train.pixels(), Pixels::Table(rows.clone()));
    assert_eq!(train.targets(), [100.5, 150.0, 120.0]);

    let p = standardise(&rows, table);
    let mut input = vec![0.0; 12];
    p.check(train.shape()).unwrap();
    p.apply(train.shape(), &rows, &mut input);
    for feature in 0..4 {
        let values: Vec<f32> = input.iter().skip(feature).step_by(4).copied().collect();
        let mean = values.iter().sum::<f32>() / 3.0;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / 3.0;
        assert!(
            mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5,
            "{values:?}"
        );
    }
    let mut one = [0.0; 4];
    train.fill_input(1, &p, &mut one);
    assert_eq!(one, input[4..8]);
}

#[test]
fn a_feature_that_never_differs_is_not_divided() {
    let table = Table {
        columns: vec![column("a", &[]), column("b", &[])],
        target: "y".into(),
        classes: None,
    };
    let p = standardise(&[3.0, 1e8, 3.0, 1e8], table);
    assert_eq!((p.mean, p.std), (vec![3.0, 1e8], vec![1.0, 1.0]));
}

#[test]
fn targets_that_are_words_or_integers_are_classes() {
    let folder = Folder::new();
    let path = folder.write("a.csv", "kind;x\nspam;1\nham;2.5\nspam;3\n");
    let options = TableOptions {
        target: Some("kind"),
        table: None,
    };
    let splits = classes(load_samples_with(&path, &options).unwrap());
    let table = splits.table.unwrap();
    assert_eq!(table.classes, Some(vec!["ham".into(), "spam".into()]));
    assert_eq!(splits.train.unwrap().labels, [1, 0, 1]);

    let path = folder.write("b.csv", "\u{feff}x\tclass\r\n1\t3\r\n2\t0\r\n");
    let loaded = load_samples(&path).unwrap();
    assert_eq!(loaded.shape_and_outputs(), Some((&Shape::from([1]), 4)));
    let splits = classes(loaded);
    assert_eq!(splits.table.as_ref().unwrap().columns, [column("x", &[])]);
    assert_eq!(splits.train.as_ref().unwrap().labels, [3, 0]);
    assert_eq!(load_data(&path).unwrap(), splits);
    let error = load_data(folder.write("c.csv", HOUSES)).unwrap_err();
    assert!(error.to_string().contains("expected classes"), "{error}");
}

#[test]
fn a_fifth_of_the_rows_is_for_testing_whatever_they_hold() {
    let folder = Folder::new();
    let table = |factor: usize| {
        let rows: String = (0..503)
            .map(|i| format!("{},{i}.0\n", i * factor))
            .collect();
        folder.write("t.csv", format!("x,y\n{rows}"))
    };
    let mut targets = vec![];
    for factor in [1, 7] {
        let splits = numbers(load_samples(table(factor)).unwrap());
        let (train, test) = (splits.train.unwrap(), splits.test.unwrap());
        assert_eq!((train.len(), test.len()), (403, 100));
        let of_both = [train.targets(), test.targets()];
        targets.push(of_both.map(<[f32]>::to_vec));
    }
    assert_eq!(targets[0], targets[1]);
    let mut all = targets.swap_remove(0).concat();
    all.sort_by(f32::total_cmp);
    let expected: Vec<f32> = (0..503).map(|i| i as f32).collect();
    assert_eq!(all, expected);
}

#[test]
fn a_folder_has_a_table_for_training_and_one_for_testing() {
    let folder = Folder::new();
    folder.write("train.csv", "a,b,y\n1,x,0.5\n2,z,1\n");
    folder.write("test.csv", "b,y,a\nz,7.5,9\n");
    let splits = numbers(load_samples(folder.0.path()).unwrap());
    assert_eq!(splits.train.unwrap().len(), 2);
    let test = splits.test.unwrap();
    assert_eq!(*test.pixels(), Pixels::Table(vec![9.0, 0.0, 1.0]));
    assert_eq!(test.targets(), [7.5]);
    folder.write("test.csv", "a,b,y\n1,w,0.5\n");
    let error = load_samples(folder.0.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("test.csv: line 2, column `b`: expected one of `x`, `z`, got `w`"),
        "{error}"
    );
}

#[test]
fn a_network_reads_rows_by_the_columns_that_it_stores() {
    let folder = Folder::new();
    let table = Table {
        columns: vec![column("colour", &["blue", "red"]), column("size", &[])],
        target: "price".into(),
        classes: None,
    };
    let read = |text: &str| {
        read_table(folder.write("t.csv", text), &table).map_err(|e| {
            let text = e.to_string();
            text.split_once("t.csv: ").unwrap().1.to_owned()
        })
    };
    assert_eq!(read("size,colour\n3,red\n").unwrap(), [0.0, 1.0, 3.0]);
    assert_eq!(
        read("price,size,colour\n1,3,blue\n").unwrap(),
        [1.0, 0.0, 3.0]
    );
    let refused = [
        (
            "size,price\n3,1\n",
            "header: expected a column `colour`, got `size`, `price`",
        ),
        (
            "size,colour,id\n3,red,1\n",
            "header: expected the columns that the network was trained on: `colour`, `size`, got `id`",
        ),
        (
            "size,colour\n3,red\n4,green\n",
            "line 3, column `colour`: expected one of `blue`, `red`, got `green`",
        ),
        (
            "size,colour\n3,1\n",
            "column `colour`: expected categories: `blue`, `red`, got numbers",
        ),
        (
            "size,colour\nbig,red\n",
            "column `size`: expected numbers, as when the network was trained, got words",
        ),
    ];
    for (text, expected) in refused {
        assert_eq!(read(text), Err(expected.into()));
    }
    let named = |target| {
        let options = TableOptions {
            target: Some(target),
            table: Some(&table),
        };
        load_samples_with(
            folder.write("t.csv", "colour,size,price\nred,1,2\n"),
            &options,
        )
    };
    assert!(named("price").is_ok());
    let error = named("size").unwrap_err().to_string();
    assert!(
        error.contains("expected `price`, the target of the network, got `size`"),
        "{error}"
    );
    // A target that the network knows as classes.
    let table = Table {
        classes: Some(vec!["0".into(), "1".into()]),
        ..table
    };
    let labels = |text: &str| {
        let options = TableOptions {
            target: None,
            table: Some(&table),
        };
        load_samples_with(folder.write("t.csv", text), &options).map_err(|e| e.to_string())
    };
    let splits = classes(labels("colour,size,price\nred,1,1\n").unwrap());
    assert_eq!(splits.train.unwrap().labels, [1]);
    let error = labels("colour,size,price\nred,1,1\nred,1,2\n").unwrap_err();
    assert!(
        error.contains("line 3, column `price`: expected one of `0`, `1`, got `2`"),
        "{error}"
    );
    assert!(
        labels("colour,size\nred,1\n")
            .unwrap_err()
            .contains("a column `price`, the target")
    );
}

#[test]
fn what_is_no_table_is_refused_with_its_line_and_column() {
    let folder = Folder::new();
    let many: String = (0..1001).map(|i| format!("w{i},1.5\n")).collect();
    let many = format!("x,y\n{many}");
    let cases: Vec<(&[u8], &str)> = vec![
        (
            b"a,b\n1,2\n3,\n",
            "line 3, column `b`: expected a value, got a missing one (``)",
        ),
        (
            b"a,b\nNA,2\n",
            "line 2, column `a`: expected a value, got a missing one (`NA`)",
        ),
        (
            b"a,b\n\n\n?,2\n",
            "line 4, column `a`: expected a value, got a missing one (`?`)",
        ),
        (
            "\u{feff}a,b\r\n1,2\r\n\r\n\r\n?,2\r\n".as_bytes(),
            "line 5, column `a`: expected a value, got a missing one (`?`)",
        ),
        (
            b"a,b\n\"one\ntwo\",2\nthree,\n",
            "line 4, column `b`: expected a value, got a missing one (``)",
        ),
        (
            b"a,b\n1,nan\n",
            "line 2, column `b`: expected a value, got a missing one (`nan`)",
        ),
        (
            b"a,b\n1,2\nx,3\n",
            "line 3, column `a`: expected a number, as in the rows before, got `x`",
        ),
        (
            b"a,b\nx,2\n7,3\n",
            "line 3, column `a`: expected a word, as in the rows before, got `7`",
        ),
        (
            b"a,b\n1e99,2\n",
            "line 2, column `a`: expected a finite number that f32 can hold, got `1e99`",
        ),
        (
            b"a,b\ninf,2\n",
            "line 2, column `a`: expected a finite number that f32 can hold, got `inf`",
        ),
        (
            b"a,b\n1,2\n1,2,3\n",
            "line 3: expected 2 values, one per column of the header, got 3",
        ),
        (
            b"a,b\n1,2\n1\n",
            "line 3: expected 2 values, one per column of the header, got 1",
        ),
        (
            b"a,b\n",
            "table: expected at least one row below the header, got none",
        ),
        (
            b"1,2\n3,4\n",
            "header: expected names of the columns in the first line, got `1`, `2`",
        ),
        (
            b"a,,c\n1,2,3\n",
            "header: expected a name for every column, got none for column 2",
        ),
        (
            b"a,b,a\n1,2,3\n",
            "header: expected names that differ, got `a` twice",
        ),
        (
            b"a,b\n1,-2\n",
            "line 2, column `b`: expected a class from 0 to 999, or, for a regression, a number with a decimal point in some row, got -2",
        ),
        (
            b"a,b\n1,2\n1,1000\n",
            "line 3, column `b`: expected a class from 0 to 999, or, for a regression, a number with a decimal point in some row, got 1000",
        ),
        (
            many.as_bytes(),
            "line 1002, column `x`: expected at most 1000 different words, got another, `w1000`",
        ),
        (
            b"\"a,b\n1,2\n",
            "header: expected 2 to 65536 columns: inputs and a target, got 1",
        ),
    ];
    for (text, expected) in cases {
        let path = folder.write("t.csv", text);
        let error = load_samples(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {expected}", path.display()));
    }
    // Bytes beyond those that tell the type of a file.
    let mut long = b"a,b\n".to_vec();
    long.extend(b"1,2\n".repeat(2000));
    long.extend(b"\xff,2\n");
    let error = load_samples(folder.write("t.csv", long))
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("line 2002: expected UTF-8 text, got other bytes"),
        "{error}"
    );
    let options = TableOptions {
        target: Some("z"),
        table: None,
    };
    let path = folder.write("t.csv", HOUSES);
    let error = load_samples_with(&path, &options).unwrap_err().to_string();
    assert!(
        error.ends_with("target: expected a column `z`, got `area`, `heating`, `floors`, `price`"),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    let error = load_samples_with(folder.0.path(), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("target `z`: expected a table"), "{error}");
}
