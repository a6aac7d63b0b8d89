//! The store under a process that dies, a file that is damaged, and a second process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::stage::{Api, Ended, Running, fairlead, run};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A folder of this test's own; removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn create(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("fl-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(fairlead()?);
        command
            .args(["server", "--secure-port=0", "--data-dir"])
            .arg(self.path("data"))
            .arg("--write-kubeconfig")
            .arg(self.path("kubeconfig"));
        Ok(command)
    }

    /// Starts a server on a free port of the loopback device.
    fn server(&self) -> Result<(Running, Api)> {
        let _ = std::fs::remove_file(self.path("kubeconfig"));
        let mut running = Running::start(&mut self.command()?, &self.path("log"))?;
        running.ready()?;
        Ok((running, Api::here(&self.path("kubeconfig"))?))
    }

    /// Runs a server that does not start.
    fn refused(&self) -> Result<Ended> {
        run(&mut self.command()?)
    }

    /// The log of the store that is written now.
    fn newest_log(&self) -> Result<PathBuf> {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(self.path("data/store"))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()?;
        logs.retain(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"FLEADLOG")));
        logs.sort();
        logs.pop().context("no log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config_map(index: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c-{index}")},
        "data": {"index": index.to_string(), "filling": "x".repeat(200)},
    })
}

fn fill(api: &Api, count: usize) -> Result<()> {
    (0..count).try_for_each(|index| api.create(CONFIG_MAPS, config_map(index)).map(drop))
}

#[test]
fn kill_9_during_writes_loses_nothing_acknowledged() -> Result<()> {
    const COUNT: usize = 200;
    let folder = Folder::create("kill")?;
    let (mut running, api) = folder.server()?;
    // Eight writers; the last writes are under way when the process dies.
    let acknowledged = api.talk(|client| async move {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for writer in 0..8 {
            let (client, sender) = (client.clone(), sender.clone());
            tokio::spawn(async move {
                let path = client::Path::raw(CONFIG_MAPS);
                for index in (writer..).step_by(8) {
                    if client
                        .create::<Value>(&path, &config_map(index))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    let _ = sender.send(index);
                }
            });
        }
        let mut acknowledged = Vec::new();
        while acknowledged.len() < COUNT {
            acknowledged.push(receiver.recv().await.context("the writers ended")?);
        }
        tokio::task::spawn_blocking(move || running.process.kill()).await??;
        drop(sender);
        while let Some(index) = receiver.recv().await {
            acknowledged.push(index);
        }
        Ok(acknowledged)
    })?;
    assert!(acknowledged.len() >= COUNT);
    let (running, api) = folder.server()?;
    let items = api.talk(|client| async move {
        let path = client::Path::raw(CONFIG_MAPS);
        Ok(client
            .list::<Value>(&path, &client::ListParams::default())
            .await?
            .items)
    })?;
    for index in acknowledged {
        let found = items
            .iter()
            .find(|item| item["metadata"]["name"] == format!("c-{index}"));
        let found = found.with_context(|| format!("c-{index} was acknowledged and is lost"))?;
        assert_eq!(found["data"], config_map(index)["data"]);
    }
    running.assert_terminates()
}

#[test]
fn damage_in_the_middle_is_named_with_its_place_and_a_torn_tail_is_not_damage() -> Result<()> {
    const COUNT: usize = 20;
    let folder = Folder::create("damage")?;
    let (running, api) = folder.server()?;
    fill(&api, COUNT)?;
    running.assert_terminates()?;
    let log = folder.newest_log()?;
    let whole = std::fs::read(&log)?;
    // The file is longer than what is written in it.
    let used = whole
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);

    let mut damaged = whole.clone();
    // Among what was filled in, a frame each. What a cluster begins with is one long frame before that.
    let middle = used - 5_000;
    damaged[middle] ^= 0x10;
    std::fs::write(&log, &damaged)?;
    let ended = folder.refused()?;
    let name = log.display().to_string();
    ended.assert_refused(1, &[&name, "is damaged at offset ", "to repair it, "]);
    let offset = ended
        .stderr
        .split("at offset ")
        .nth(1)
        .and_then(|rest| rest.split(':').next());
    let offset: usize = offset.context("an offset")?.parse()?;
    assert!(
        offset <= middle && middle - offset < 2000,
        "{offset} for damage at {middle}"
    );
    assert_eq!(
        std::fs::read(&log)?,
        damaged,
        "nothing is changed by a start that is refused"
    );
    assert_eq!(
        folder.refused()?.stderr.lines().last(),
        ended.stderr.lines().last()
    );

    std::fs::write(&log, b"something else entirely, of some length or other")?;
    folder
        .refused()?
        .assert_refused(1, &[&name, "is not a storage file of Fairlead"]);

    // A frame that was begun and never acknowledged.
    let mut torn = whole;
    torn.truncate(used);
    torn.extend([0x40, 0, 0, 0, 1, 2, 3]);
    std::fs::write(&log, &torn)?;
    let (running, api) = folder.server()?;
    // Beside them is the one that every namespace has.
    assert!(api.count(CONFIG_MAPS)? >= COUNT);
    api.create(CONFIG_MAPS, config_map(COUNT))?;
    running.assert_terminates()?;
    let (running, api) = folder.server()?;
    assert!(api.count(CONFIG_MAPS)? > COUNT);
    running.assert_terminates()
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() -> Result<()> {
    let folder = Folder::create("second")?;
    let (running, api) = folder.server()?;
    let pid = format!("in use by process {}", running.process.id());
    let data = folder.path("data").display().to_string();
    folder
        .refused()?
        .assert_refused(1, &[&data, &pid, "choose another directory"]);
    fill(&api, 3)?;
    assert!(api.count(CONFIG_MAPS)? >= 3);
    running.assert_terminates()
}

/// Half a certificate, and a folder that others may read: told, not overwritten.
#[test]
fn broken_certificates_are_named_and_kept() -> Result<()> {
    let folder = Folder::create("pki")?;
    let (running, _) = folder.server()?;
    running.assert_terminates()?;
    let ca: &Path = &folder.path("data/pki/ca.crt");
    std::fs::write(ca, "-----BEGIN CERTIFICATE-----\nnonsense\n")?;
    folder.refused()?.assert_refused(
        1,
        &[&ca.display().to_string(), "cannot be used", "Restore it"],
    );
    assert!(std::fs::read_to_string(ca)?.contains("nonsense"));
    Ok(())
}
