//! What processes use, with their children: nsd answers in processes of its own.

use anyhow::{Context as _, Result};

/// Microseconds of CPU that a process and its living descendants have had, in user and kernel mode.
pub(crate) fn cpu_micros(pid: u32) -> Result<f64> {
    // proc_pid_stat(5): a tick is 10 ms wherever Linux runs today.
    const TICK_MICROS: f64 = 10_000.0;
    let mut ticks = 0;
    for pid in family(pid)? {
        let fields = stat(pid).unwrap_or_default();
        ticks += number(&fields, 11) + number(&fields, 12);
    }
    Ok(ticks as f64 * TICK_MICROS)
}

/// Resident memory of a process in megabytes (10^6 octets).
pub(crate) fn resident_mb(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// The process and its descendants.
fn family(pid: u32) -> Result<Vec<u32>> {
    let all: Vec<(u32, u64)> = std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, number(&stat(pid)?, 1))))
        .collect();
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        let children = all.iter().filter(|(_, of)| *of == u64::from(parent));
        family.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(family)
}

/// The fields of `/proc/PID/stat` after the name, which may hold blanks; none of a process that ended.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn number(fields: &[String], at: usize) -> u64 {
    fields
        .get(at)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}
