//! What a Cargo.toml depends on, however that is written. Not a TOML parser: it knows keys, quotes, comments and inline
//! tables, which is what cargo's tables of dependencies are made of.

use std::collections::BTreeMap;

/// The tables that dependencies stand in.
const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// The package that is meant, whatever name it is given there, and the table.
pub(super) type Dependency = (String, &'static str);

/// Every dependency of a member, those of single targets included. `renamed` holds the names that the workspace gives
/// to packages of other names.
pub(super) fn dependencies(manifest: &str, renamed: &BTreeMap<String, String>) -> Vec<Dependency> {
    let mut found: BTreeMap<(&'static str, String), String> = BTreeMap::new();
    for (path, value) in entries(manifest) {
        let path = match path.as_slice() {
            [target, _, rest @ ..] if target == "target" => rest,
            path => path,
        };
        let [table, name, rest @ ..] = path else {
            continue;
        };
        let Some(table) = TABLES.into_iter().find(|known| known == table) else {
            continue;
        };
        let package = found
            .entry((table, name.clone()))
            .or_insert_with(|| name.clone());
        match rest {
            [key] if key == "package" => *package = value,
            [key] if key == "workspace" => {
                *package = renamed.get(name).unwrap_or(name).clone();
            }
            _ => {}
        }
    }
    found
        .into_iter()
        .map(|((table, _), package)| (package, table))
        .collect()
}

/// Name to package, where the workspace's own table of dependencies has them differ.
pub(super) fn renamed(root: &str) -> BTreeMap<String, String> {
    entries(root)
        .into_iter()
        .filter_map(|(path, value)| match path.as_slice() {
            [workspace, table, name, key]
                if workspace == "workspace" && table == "dependencies" && key == "package" =>
            {
                Some((name.clone(), value))
            }
            _ => None,
        })
        .collect()
}

/// Every value with the whole path of its keys, inline tables taken apart.
fn entries(manifest: &str) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut header = Vec::new();
    let mut statement = String::new();
    for line in manifest.lines() {
        statement.push_str(split(line, '#').first().copied().unwrap_or("").trim());
        // An array or an inline table goes on until its brackets are closed.
        if depth(&statement) > 0 {
            continue;
        }
        if let Some(keys) = statement.strip_prefix('[') {
            header = path(keys.trim_matches(['[', ']']));
        } else {
            entry(&header, &statement, &mut found);
        }
        statement.clear();
    }
    found
}

fn entry(above: &[String], statement: &str, found: &mut Vec<(Vec<String>, String)>) {
    let [key, value] = split(statement, '=')[..] else {
        return;
    };
    let keys: Vec<String> = above.iter().cloned().chain(path(key)).collect();
    let value = value.trim();
    match value
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
    {
        Some(table) => {
            for inner in split(table, ',') {
                entry(&keys, inner, found);
            }
        }
        None => found.push((keys, unquoted(value))),
    }
}

/// `target.'cfg(unix)'.dependencies` as its keys.
fn path(keys: &str) -> Vec<String> {
    split(keys, '.').into_iter().map(unquoted).collect()
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}

/// Splits where the character stands outside of quotes and brackets.
fn split(text: &str, at: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    for (index, character, depth) in outside_quotes(text) {
        if character == at && depth == 0 {
            parts.push(&text[begin..index]);
            begin = index + at.len_utf8();
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// How many brackets are open at the end.
fn depth(text: &str) -> i32 {
    outside_quotes(text).last().map_or(0, |(_, _, depth)| depth)
}

/// The characters that do not stand in quotes, each with its place and the brackets that are open after it.
fn outside_quotes(text: &str) -> impl Iterator<Item = (usize, char, i32)> {
    let mut quote = None;
    let mut depth = 0;
    text.char_indices().filter_map(move |(index, character)| {
        match (quote, character) {
            (Some(open), _) => {
                quote = Some(open).filter(|open| *open != character);
                return None;
            }
            (None, '"' | '\'') => {
                quote = Some(character);
                return None;
            }
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, _) => {}
        }
        Some((index, character, depth))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_found_however_it_is_written() {
        let cases = [
            ("[dependencies]\nnet.workspace = true\n", "net"),
            (
                "[dependencies]\nnet = { workspace = true } # its links\n",
                "net",
            ),
            ("[dependencies]\n\"net\" = \"1\"\n", "net"),
            ("[dependencies.net]\nworkspace = true\n", "net"),
            ("dependencies.net.path = \"../net\"\n", "net"),
            ("dependencies = { net = { path = \"../net\" } }\n", "net"),
            (
                "[dependencies]\nkernel = { package = \"net\", path = \"../net\" }\n",
                "net",
            ),
            (
                "[dependencies.kernel]\npath = \"../net\"\npackage = 'net'\n",
                "net",
            ),
            ("[dependencies]\nlinks.workspace = true\n", "net"),
            (
                "[dependencies]\nnet = { path = \"../net\", features = [\n  \"a\", # [\n  \"b\",\n] }\n",
                "net",
            ),
            (
                "[target.'cfg(target_os = \"linux\")'.dependencies]\nnet.workspace = true\n",
                "net",
            ),
            (
                "[target.\"cfg(unix)\".dependencies.kernel]\npackage = \"net\"\n",
                "net",
            ),
        ];
        let renamed =
            renamed("[workspace.dependencies]\nlinks = { package = \"net\", path = \"net\" }\n");
        for (manifest, package) in cases {
            assert_eq!(
                dependencies(manifest, &renamed),
                [(package.to_owned(), "dependencies")],
                "{manifest}"
            );
        }
        let tests = "[dev-dependencies.net]\nworkspace = true\n\n[lints]\nworkspace = true\n";
        assert_eq!(
            dependencies(tests, &renamed),
            [("net".to_owned(), "dev-dependencies")]
        );
        assert!(dependencies("[package]\nname = \"net\"\n# [dependencies]\n", &renamed).is_empty());
    }
}
