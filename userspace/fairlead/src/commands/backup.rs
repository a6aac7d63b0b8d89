//! `fairlead backup` and `fairlead restore`: everything that the embedded store holds, in one file and back.

use anyhow::Context as _;

use crate::cli::{Backup, Restore};
use crate::output;

/// Reads the files of the store, whether a server runs on them or not.
pub(crate) fn backup(flags: &Backup) -> anyhow::Result<()> {
    let store = flags.data_dir.join("store");
    let copied = storage_embedded::backup(&store, &flags.file)
        .with_context(|| format!("copy the store in --data-dir {}", flags.data_dir.display()))?;
    output::emit(&format!(
        "{} keys at revision {} in {}\n",
        copied.keys,
        copied.revision.0,
        flags.file.display()
    ))
}

/// Makes the store of a data directory that has none.
pub(crate) fn restore(flags: &Restore) -> anyhow::Result<()> {
    let store = flags.data_dir.join("store");
    let made = storage_embedded::restore(&flags.file, &store, flags.bump_revision)
        .with_context(|| format!("make a store of {}", flags.file.display()))?;
    output::emit(&format!(
        "{} keys in {}, which goes on from revision {}\n",
        made.keys,
        flags.data_dir.display(),
        made.revision.0
    ))
}
