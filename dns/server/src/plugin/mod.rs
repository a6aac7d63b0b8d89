//! Plugins: the trait, the chain, and the table that gives their order.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::OpCode;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, RecordType};

use crate::message::Failure;
use crate::message::Request;
use crate::message::Served;

mod acl;
mod any;
mod auto;
pub mod autopath;
mod bufsize;
mod cache;
mod cancel;
mod chaos;
mod clients;
mod dns64;
pub mod dnstap;
mod errors;
pub mod file;
pub(crate) mod forward;
mod header;
mod health;
mod hosts;
pub mod k8s_external;
pub mod kubernetes;
mod loadbalance;
mod local;
mod log;
mod looping;
mod minimal;
mod nsid;
pub mod prometheus;
pub mod ready;
mod reload;
mod rewrite;
mod rrl;
pub(crate) mod secondary;
mod settings;
pub mod setup;
pub mod table;
mod template;
pub mod transfer;
pub mod tsig;
mod view;
mod weights;
mod whoami;

/// One link of a chain.
pub trait Plugin: Send + Sync + 'static {
    /// Its name in a Corefile.
    fn name(&self) -> &'static str;

    /// Answers the request or hands it on with `next.serve(request)`.
    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served>;

    /// False until the plugin can answer; `ready` asks all of them.
    fn ready(&self) -> bool {
        true
    }

    /// Ends when the plugin can answer. Only one that waits for a cluster to be heard of takes any time. Call it inside the
    /// runtime.
    fn until_ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Adds what the plugin knows of a request to its metadata; asked before views are, in blocks with `metadata`.
    fn describe(&self, _request: &mut Request) {}

    /// True if the plugin itself would answer this now: what it knows is not kept in a cache in front of it.
    fn holds(&self, _request: &Request) -> bool {
        false
    }

    /// What it does to an answer about the cluster: see [`crate::fast`].
    fn fast(&self) -> crate::fast::Fast {
        crate::fast::Fast::Blocks
    }

    /// Called once when the chain goes into service, inside the runtime. Tasks that it starts end when the plugin
    /// is dropped.
    fn start(&self) {}

    /// Called once when the process ends and answers nothing any more: says goodbye to those who expect it.
    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// The plugins that a NOTIFY (RFC 1996) goes through: who counts, who guards, and who has zones of others. It is no
/// question, so that all others, who would answer one, never see it.
const NOTIFIED: [&str; 9] = [
    "prometheus",
    "errors",
    "log",
    "dnstap",
    "rrl",
    "tsig",
    "acl",
    "header",
    "secondary",
];

/// The plugins that refuse what is not in their zones, where none follows.
const REFUSE_AT_THE_END: [&str; 3] = ["auto", "file", "secondary"];

/// Whether it asks for records, of the class that is served here.
fn is_question(request: &Request) -> bool {
    request.message.metadata.op_code == OpCode::Query && request.class() == DNSClass::IN
}

/// The plugins of a server block, first to last.
pub type Chain = Arc<[Arc<dyn Plugin>]>;

/// The rest of a chain.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    chain: &'a Chain,
    index: usize,
}

impl<'a> Next<'a> {
    /// The whole chain.
    #[must_use]
    pub fn first(chain: &'a Chain) -> Self {
        Self { chain, index: 0 }
    }

    /// Lets the rest of the chain answer. At its end nobody did, see [`Next::nobody`].
    pub fn serve(mut self, request: &'a mut Request) -> BoxFuture<'a, Served> {
        if request.message.metadata.op_code == OpCode::Notify {
            let rest = self.rest().iter();
            self.index += rest
                .take_while(|plugin| !NOTIFIED.contains(&plugin.name()))
                .count();
        }
        match self.chain.get(self.index) {
            Some(plugin) => plugin.serve(
                request,
                Self {
                    chain: self.chain,
                    index: self.index + 1,
                },
            ),
            None => {
                let failure = self.nobody(request);
                Box::pin(async { Err(failure) })
            }
        }
    }

    /// What is said where nobody answered, as CoreDNS says it: SERVFAIL, for the chain lacks who knows more. Where no plugin
    /// was asked, or the last one has zones of which the name is none, the query is refused, and so are a NOTIFY and classes
    /// but the Internet's.
    fn nobody(self, request: &Request) -> Failure {
        let refused = |who| Failure::code(who, ResponseCode::Refused, "the name is in no zone");
        let last = self.index.checked_sub(1).and_then(|at| self.chain.get(at));
        match last.map(|plugin| plugin.name()) {
            Some(last) if is_question(request) && !REFUSE_AT_THE_END.contains(&last) => {
                Failure::new(last, format!("plugin/{last}: no next plugin found"))
            }
            Some(last) => refused(last),
            None => refused("server"),
        }
    }

    /// The rest of the chain for a task of its own.
    #[must_use]
    pub fn detach(self) -> Detached {
        Detached {
            chain: Arc::clone(self.chain),
            index: self.index,
        }
    }

    /// The plugins that follow.
    #[must_use]
    pub fn rest(self) -> &'a [Arc<dyn Plugin>] {
        self.chain.get(self.index..).unwrap_or_default()
    }
}

/// The rest of a chain, owned.
#[derive(Clone)]
pub struct Detached {
    chain: Chain,
    index: usize,
}

impl Detached {
    /// As [`Next::serve`].
    pub async fn serve(&self, request: &mut Request) -> Served {
        Next {
            chain: &self.chain,
            index: self.index,
        }
        .serve(request)
        .await
    }
}

/// The type of questions that a Corefile names: one of records, or `AXFR`, `IXFR`, `ANY`.
#[must_use]
pub fn asked_kind(text: &str) -> Option<RecordType> {
    match text.to_ascii_uppercase().as_str() {
        "AXFR" => Some(RecordType::AXFR),
        "IXFR" => Some(RecordType::IXFR),
        "ANY" | "*" => Some(RecordType::ANY),
        _ => file::types::kind(text),
    }
}

/// The name of a response code, as [`code`] reads it; its number where it has none.
#[must_use]
pub fn code_name(code: ResponseCode) -> String {
    match prometheus::code_label(code) {
        _ if code == ResponseCode::BADVERS => "BADVERS".to_owned(),
        "other" => u16::from(code).to_string(),
        label => label.to_owned(),
    }
}

/// The response code of a name as zone files and Corefiles write it, or of a number.
#[must_use]
pub fn code(text: &str) -> Option<ResponseCode> {
    let named = match text.to_ascii_uppercase().as_str() {
        "NOERROR" => ResponseCode::NoError,
        "FORMERR" => ResponseCode::FormErr,
        "SERVFAIL" => ResponseCode::ServFail,
        "NXDOMAIN" => ResponseCode::NXDomain,
        "NOTIMP" => ResponseCode::NotImp,
        "REFUSED" => ResponseCode::Refused,
        "YXDOMAIN" => ResponseCode::YXDomain,
        "YXRRSET" => ResponseCode::YXRRSet,
        "NXRRSET" => ResponseCode::NXRRSet,
        "NOTAUTH" => ResponseCode::NotAuth,
        "NOTZONE" => ResponseCode::NotZone,
        number => {
            let number: u16 = number.parse().ok().filter(|number| *number < 4096)?;
            let [high, low] = [(number >> 4) as u8, (number & 15) as u8];
            ResponseCode::from(high, low)
        }
    };
    Some(named)
}
