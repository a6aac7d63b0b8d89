//! The process that the testbed starts in a namespace and a cgroup; see `testbed::agent`.
#![forbid(unsafe_code)]

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    testbed::agent::run(testbed::agent::Options::parse())
}
