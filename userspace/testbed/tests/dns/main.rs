//! `fairlead dns` in front of a real API server: what it says while the cluster changes, and what the resolvers of
//! glibc and musl make of it; and its zones of files beside another server's.

mod churn;
mod differential;
mod forwarding;
mod load;
mod own;
mod resolvers;
mod signed;
mod stage;
mod transfers;
