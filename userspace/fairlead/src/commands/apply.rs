//! `fairlead apply`: the built-in client, for hosts without kubectl.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use client::Applied;
use serde_json::Value;

use super::connect;
use crate::cli::Apply;
use crate::output;

/// Applies every document of every file. One that is refused does not stop the others; the command fails then.
pub(crate) async fn run(flags: &Apply) -> anyhow::Result<()> {
    let client = connect(&flags.kubeconfig.kubeconfig)?;
    let (mut applied, mut refused) = (0, 0);
    for file in manifests(&flags.filename)? {
        let documents = match read(&file) {
            Ok(documents) => documents,
            Err(error) => {
                refused += 1;
                eprintln!("{}: {error:#}", file.display());
                continue;
            }
        };
        for document in documents {
            let name = name(&document);
            match client.apply(&document).await {
                Ok(done) => {
                    applied += 1;
                    output::emit(&format!("{name} {}\n", word(&done)))?;
                }
                Err(error) => {
                    refused += 1;
                    let error = anyhow::Error::from(error);
                    eprintln!("{}: {name}: {error:#}", file.display());
                }
            }
        }
    }
    anyhow::ensure!(
        refused == 0,
        "{refused} of {} were refused, each named above",
        applied + refused
    );
    anyhow::ensure!(applied > 0, "no object in what --filename names");
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<Value>> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.context("cannot be read")?;
    Ok(client::documents(&text)?)
}

/// As kubectl prints it.
fn name(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{}/{}",
        text(&document["kind"]).to_lowercase(),
        text(&document["metadata"]["name"])
    )
}

fn word(applied: &Applied) -> &'static str {
    match applied {
        Applied::Created(_) => "created",
        Applied::Configured(_) => "configured",
        Applied::Unchanged(_) => "unchanged",
    }
}

/// The files named, and those of the folders named, in order of name.
fn manifests(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("read the folder {}", path.display()))?;
        let mut found: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .with_context(|| format!("read the folder {}", path.display()))?;
        found.retain(|file| is_manifest(file));
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn is_manifest(file: &Path) -> bool {
    file.extension()
        .is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
}
