//! Which file of a crate imports from which, read from the sources.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

/// Path of a module in its crate; empty for the root.
type Module = Vec<String>;

/// The files of a crate, and for each the files from which it imports.
///
/// A file imports from another where it names an item that is defined there: in a `use`, or in a path that starts with `crate`, `self`, `super`
/// or a child module. Names that a file re-exports (`pub use`) are followed to the file that defines them. A re-export itself counts only where
/// the file also uses the name. Modules under `#[cfg(test)]` do not count.
pub struct Imports(BTreeMap<Module, BTreeSet<Module>>);

/// What is read of one file.
#[derive(Default)]
struct Source {
    /// Paths that it names, as segments, resolved up to the root of the crate.
    paths: Vec<Vec<String>>,
    /// Names that it re-exports, with their paths.
    exports: BTreeMap<String, Vec<String>>,
}

impl Imports {
    /// Reads all files under the `src` folder of a crate.
    ///
    /// With `shared_root`, names that the root re-exports do not count. They are the vocabulary of the crate, types that may name each other.
    pub fn of_crate(src: &Path, shared_root: bool) -> Self {
        let mut files = Vec::new();
        super::collect(src, &mut files);
        let texts = files.iter().map(|file| {
            let relative = file.strip_prefix(src).unwrap().with_extension("");
            let mut module: Module = relative
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            if matches!(module.last().unwrap().as_str(), "mod" | "lib" | "main") {
                module.pop();
            }
            (module, fs::read_to_string(file).unwrap())
        });
        Self::of_texts(texts.collect(), shared_root)
    }

    fn of_texts(texts: BTreeMap<Module, String>, shared_root: bool) -> Self {
        let modules: BTreeSet<Module> = texts.keys().cloned().collect();
        let sources: BTreeMap<Module, Source> = texts
            .iter()
            .map(|(module, text)| (module.clone(), Source::read(module, text, &modules)))
            .collect();
        let mut imports = BTreeMap::new();
        for (module, source) in &sources {
            let shared = |path: &[String]| {
                shared_root
                    && path.len() == 1
                    && sources[&Module::new()].exports.contains_key(&path[0])
            };
            let from = source.paths.iter().filter(|path| !shared(path));
            let mut from: BTreeSet<Module> = from.map(|path| defined_in(path, &sources)).collect();
            from.remove(module);
            imports.insert(module.clone(), from);
        }
        Self(imports)
    }

    /// Whether one module imports from another.
    pub fn has(&self, from: &str, to: &str) -> bool {
        let module = |name: &str| -> Module { name.split("::").map(str::to_owned).collect() };
        self.0[&module(from)].contains(&module(to))
    }

    /// For each file that imports from itself by way of others, the shortest such circle.
    pub fn circles(&self) -> Vec<String> {
        let circles = self.0.keys().filter_map(|start| self.circle(start));
        let name = |module: &Module| match module.as_slice() {
            [] => "(root)".to_owned(),
            path => path.join("::"),
        };
        circles
            .map(|circle| circle.iter().map(name).collect::<Vec<_>>().join(" -> "))
            .collect()
    }

    fn circle(&self, start: &Module) -> Option<Vec<Module>> {
        let mut paths = VecDeque::from([vec![start.clone()]]);
        let mut seen = BTreeSet::new();
        while let Some(path) = paths.pop_front() {
            for next in &self.0[path.last()?] {
                let longer = [path.as_slice(), std::slice::from_ref(next)].concat();
                if next == start {
                    return Some(longer);
                }
                if seen.insert(next) {
                    paths.push_back(longer);
                }
            }
        }
        None
    }
}

/// The file that defines the item of a path from the root, behind all re-exports.
fn defined_in(path: &[String], sources: &BTreeMap<Module, Source>) -> Module {
    let mut path = path.to_vec();
    // Re-exports of re-exports end after a few steps.
    for _ in 0..8 {
        let known = (0..=path.len())
            .rev()
            .find(|&n| sources.contains_key(&path[..n]));
        let module = path[..known.unwrap()].to_vec();
        let item = path.get(module.len());
        match item.and_then(|item| sources[&module].exports.get(item)) {
            Some(target) => path = [target, &path[module.len() + 1..]].concat(),
            None => return module,
        }
    }
    panic!("re-exports of {path:?} go in a circle");
}

impl Source {
    fn read(module: &Module, text: &str, modules: &BTreeSet<Module>) -> Self {
        let tokens = tokens(text);
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let mut source = Self::default();
        let mut exports: Vec<(String, Vec<String>)> = Vec::new();
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        // Modules within the file, with the number of open braces around each.
        let mut inline: Vec<(String, usize)> = Vec::new();
        let (mut i, mut depth) = (0, 0);
        while i < tokens.len() {
            let here: Module = module
                .iter()
                .chain(inline.iter().map(|(name, _)| name))
                .cloned()
                .collect();
            let before = |n: usize| i.checked_sub(n).map_or("", |i| tokens[i]);
            match tokens[i] {
                "#" if tokens[i..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) => {
                    let rest = &tokens[i + 7..];
                    let item = rest.iter().position(|t| matches!(*t, "{" | ";")).unwrap();
                    i += 7;
                    if rest[..item].contains(&"mod") && rest[item] == "{" {
                        i += item + closing(&rest[item..]) + 1;
                    }
                }
                "mod" if tokens.get(i + 2) == Some(&"{") => {
                    inline.push((tokens[i + 1].to_owned(), depth));
                    i += 1;
                }
                "{" => {
                    depth += 1;
                    i += 1;
                }
                "}" => {
                    depth -= 1;
                    inline.pop_if(|(_, outside)| *outside == depth);
                    i += 1;
                }
                "use" if tokens.get(i + 1) != Some(&"<") => {
                    let end = i + tokens[i..].iter().position(|t| *t == ";").unwrap();
                    let public = before(1) == "pub" || (before(1) == ")" && before(4) == "pub");
                    for (path, name) in tree(&tokens[i + 1..end]) {
                        if let Some(path) = from_root(&path, &here, modules) {
                            if public {
                                exports.push((name.to_owned(), path));
                            } else {
                                source.paths.push(path);
                            }
                        }
                    }
                    i = end;
                }
                name if is_name(name) && before(1) != "::" => {
                    *names.entry(name).or_default() += 1;
                    // Macros name paths of the crate that defines them by `$crate`.
                    let in_macro = before(1) == "$";
                    let mut path = vec![name];
                    while tokens.get(i + 1) == Some(&"::")
                        && tokens.get(i + 2).is_some_and(|t| is_name(t))
                    {
                        path.push(tokens[i + 2]);
                        i += 2;
                    }
                    if path.len() > 1 && !in_macro {
                        source.paths.extend(from_root(&path, &here, modules));
                    }
                    i += 1;
                }
                _ => i += 1,
            }
        }
        for (name, path) in exports {
            if names.contains_key(name.as_str()) {
                source.paths.push(path.clone());
            }
            source.exports.insert(name, path);
        }
        source
    }
}

/// The path from the root of the crate; `None` for a path of another crate or of a type.
fn from_root(path: &[&str], here: &Module, modules: &BTreeSet<Module>) -> Option<Vec<String>> {
    let (mut base, rest) = match path[0] {
        "crate" => (Module::new(), &path[1..]),
        "self" | "super" => (here.clone(), path),
        name => {
            let child = [here.as_slice(), &[name.to_owned()]].concat();
            modules.contains(&child).then(|| (here.clone(), path))?
        }
    };
    for segment in rest {
        match *segment {
            "self" => {}
            "super" => {
                base.pop()?;
            }
            name => base.push(name.to_owned()),
        }
    }
    Some(base)
}

/// The paths of a `use`, each with the name that it brings.
fn tree<'t>(tokens: &[&'t str]) -> Vec<(Vec<&'t str>, &'t str)> {
    fn branches<'t>(tokens: &[&'t str], prefix: &[&'t str], paths: &mut Vec<Vec<&'t str>>) {
        let Some(open) = tokens.iter().position(|t| *t == "{") else {
            let names = tokens.iter().copied().filter(|t| is_name(t));
            paths.push(prefix.iter().copied().chain(names).collect());
            return;
        };
        let names = tokens[..open].iter().copied().filter(|t| is_name(t));
        let prefix: Vec<&str> = prefix.iter().copied().chain(names).collect();
        let inside = &tokens[open + 1..open + closing(&tokens[open..])];
        let (mut first, mut depth) = (0, 0);
        for (i, token) in inside.iter().chain([&","]).enumerate() {
            match *token {
                "{" => depth += 1,
                "}" => depth -= 1,
                "," if depth == 0 => {
                    if i > first {
                        branches(&inside[first..i], &prefix, paths);
                    }
                    first = i + 1;
                }
                _ => {}
            }
        }
    }
    let mut paths = Vec::new();
    branches(tokens, &[], &mut paths);
    let names = paths.into_iter().map(|mut path| {
        let name = path.last().copied().unwrap_or_default();
        if let Some(at) = path.iter().position(|s| *s == "as") {
            path.truncate(at);
        }
        path.pop_if(|last| *last == "self");
        (path, name)
    });
    names.collect()
}

/// Where the brace that the tokens begin with is closed.
fn closing(tokens: &[&str]) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    panic!("a brace without an end")
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single characters, without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let rest = &chars[i..];
        let until = |end: fn(&[char]) -> bool| {
            let mut n = 0;
            while n < rest.len() && !end(&rest[n..]) {
                n += 1;
            }
            n
        };
        let marks = rest[1..].iter().take_while(|c| **c == '#').count();
        i += match rest {
            ['/', '/', ..] => until(|r| r[0] == '\n'),
            ['/', '*', ..] => until(|r| r.starts_with(&['*', '/'])) + 2,
            ['r', '"' | '#', ..] if rest[1 + marks] == '"' => {
                let end: Vec<char> = ['"'].into_iter().chain(vec!['#'; marks]).collect();
                let mut n = marks + 2;
                while !rest[n..].starts_with(&end) {
                    n += 1;
                }
                n + end.len()
            }
            ['"', ..] => {
                let mut n = 1;
                while rest[n] != '"' {
                    n += if rest[n] == '\\' { 2 } else { 1 };
                }
                n + 1
            }
            ['\'', '\\', ..] => 4 + rest[3..].iter().position(|c| *c == '\'').unwrap(),
            ['\'', _, '\'', ..] => 3,
            [':', ':', ..] => {
                tokens.push("::".to_owned());
                2
            }
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let n = until(|r| !(r[0].is_alphanumeric() || r[0] == '_'));
                tokens.push(rest[..n].iter().collect());
                n
            }
            [c, ..] => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                1
            }
            [] => 1,
        };
    }
    tokens
}

#[test]
fn circles_are_found_in_uses_and_paths_and_behind_re_exports() {
    let imports = |files: &[(&str, &str)], shared_root| {
        let texts = files.iter().map(|(name, text)| {
            let module = name.split("::").filter(|n| !n.is_empty());
            (module.map(str::to_owned).collect(), (*text).to_owned())
        });
        Imports::of_texts(texts.collect(), shared_root)
    };
    let circles = |files: &[(&str, &str)]| imports(files, false).circles();
    let none: [String; 0] = [];
    // A use, a path, a child with an item of its parent, several names at once.
    let two = [
        ("", "mod a; mod b;"),
        ("a", "use crate::b::B;"),
        ("b", "fn f() { crate::a::g() }"),
    ];
    assert_eq!(circles(&two), ["a -> b -> a", "b -> a -> b"]);
    let child = [
        ("", ""),
        ("a", "mod c; fn f() { c::g() }"),
        ("a::c", "use super::{x::Y, Z};"),
    ];
    assert_eq!(circles(&child), ["a -> a::c -> a", "a::c -> a -> a::c"]);
    let one_way = [
        ("", ""),
        ("a", "mod c; fn f() { c::g() }"),
        ("a::c", "use crate::b::{self, C as D};"),
        ("b", ""),
    ];
    assert_eq!(circles(&one_way), none);
    assert!(imports(&one_way, false).has("a::c", "b"));
    // The root re-exports `A`, which `b` uses and `a` needs `b` for.
    let exported = [
        ("", "mod a; pub use a::A;"),
        ("a", "use crate::b;"),
        ("b", "use crate::A;"),
    ];
    assert_eq!(circles(&exported), ["a -> b -> a", "b -> a -> b"]);
    assert_eq!(imports(&exported, true).circles(), none);
    // A re-export alone is no import, a re-export that is used is one.
    let only = [
        ("", ""),
        ("a", "pub use crate::b::B;"),
        ("b", "use crate::a::A;"),
    ];
    assert_eq!(circles(&only), none);
    let used = [
        ("", ""),
        ("a", "pub use crate::b::B; fn f(b: B) {}"),
        ("b", "use crate::a::A;"),
    ];
    assert_eq!(circles(&used), ["a -> b -> a", "b -> a -> b"]);
    // Comments, literals and tests do not count; modules within a file are part of it.
    let quiet = [
        ("", ""),
        (
            "a",
            "// crate::b::B\nconst T: &str = \"crate::b::B\"; #[cfg(test)] mod tests { use crate::b::B; }",
        ),
        ("b", "use crate::a::T; mod inner { use super::T; }"),
    ];
    assert_eq!(circles(&quiet), none);
}
