//! `fairlead apply`: the built-in client, for hosts without kubectl.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use client::{Applied, Client};

use crate::cli::Apply;
use crate::output;

/// Applies every document of every file. One that is refused does not stop the others; the command fails then.
pub(crate) async fn run(flags: &Apply) -> anyhow::Result<()> {
    let client = Client::from_kubeconfig(&flags.kubeconfig.kubeconfig)?;
    let mut refused = 0;
    for file in manifests(&flags.filename)? {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let documents = client::documents(&text).with_context(|| file.display().to_string())?;
        for document in documents {
            let name = format!(
                "{}/{}",
                document["kind"].as_str().unwrap_or("?").to_lowercase(),
                document["metadata"]["name"].as_str().unwrap_or("?")
            );
            match client.apply(&document).await {
                Ok(applied) => output::emit(&format!("{name} {}\n", word(&applied)))?,
                Err(error) => {
                    refused += 1;
                    eprintln!("{}: {name}: {error}", file.display());
                }
            }
        }
    }
    anyhow::ensure!(refused == 0, "{refused} objects were refused");
    Ok(())
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
        let entries =
            std::fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
        let mut found: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .with_context(|| format!("read {}", path.display()))?;
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
