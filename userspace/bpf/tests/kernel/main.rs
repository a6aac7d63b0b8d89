//! Programs and tables in this machine's kernel: needs root, touches only what each test made for itself (a bpffs,
//! a cgroup, a network namespace).

mod attach;
mod choice;
mod expire;
mod ground;
mod growth;
mod histories;
mod layouts;
mod life;
mod samples;
mod sctp;
mod tables;
