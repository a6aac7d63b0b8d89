//! What the kernel tells of this process, under the names that every Prometheus client library gives it.

use super::text::Text;

/// Ticks a second in `/proc`, which is the same on every architecture that we run on (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Bytes in a page of `/proc/self/statm`.
const PAGE: u64 = 4096;

pub(super) fn render(text: &mut Text) {
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name, in brackets, may hold anything; what follows is numbers. See proc_pid_stat(5).
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    let field = |number: usize| fields.get(number - 4).copied().unwrap_or_default();
    let mut put = |name: &str, kind: &str, help: &str, value: f64| {
        text.head(name, kind, help);
        text.value(name, &[], value);
    };
    let help = "User and system CPU time spent in seconds.";
    put(
        "process_cpu_seconds_total",
        "counter",
        help,
        (field(14) + field(15)) / TICKS,
    );
    let statm = read("statm");
    let pages = |at: usize| {
        let pages = statm
            .split_whitespace()
            .nth(at)
            .and_then(|n| n.parse::<u64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
        let bytes = (pages.unwrap_or_default() * PAGE) as f64;
        bytes
    };
    let help = "Resident memory size in bytes.";
    put("process_resident_memory_bytes", "gauge", help, pages(1));
    let help = "Virtual memory size in bytes.";
    put("process_virtual_memory_bytes", "gauge", help, pages(0));
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    #[expect(clippy::cast_precision_loss, reason = "few files")]
    put(
        "process_open_fds",
        "gauge",
        "Number of open file descriptors.",
        files as f64,
    );
    let booted = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = booted.lines().find_map(|line| line.strip_prefix("btime "));
    let booted: f64 = booted
        .and_then(|time| time.parse().ok())
        .unwrap_or_default();
    let help = "Start time of the process since unix epoch in seconds.";
    put(
        "process_start_time_seconds",
        "gauge",
        help,
        booted + field(22) / TICKS,
    );
}
