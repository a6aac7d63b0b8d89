//! The packet programs, run in the kernel on packets of every kind (`BPF_PROG_TEST_RUN`): verdict, packet out, the
//! counters that moved and no others. The socket programs cannot be run like this; `datapath` tests them.

mod balancing;
mod differential;
mod direct;
mod dns;
mod errors;
mod events;
mod flood;
mod fragments;
mod host_pods;
mod hostile;
mod kernel;
mod limit;
mod masquerade;
mod policy;
mod quota;
mod refusing;
mod tunnel;
mod weight;
