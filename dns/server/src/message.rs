//! What goes through a chain: a request with where it came from, and what is to be sent back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hickory_proto::op::Message;
use hickory_proto::op::MessageType;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;

use crate::instance::Instance;

/// How often an answer may ask the server again for a part of itself (CNAME targets): bounds every chase.
pub const DEPTH_MAX: usize = 8;

/// What plugins know of a request, by CoreDNS's labels.
pub type Metadata = BTreeMap<&'static str, String>;

/// What carried a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream with length prefixes (RFC 7766).
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
}

impl Transport {
    /// The word of metrics and logs: CoreDNS's `proto` label.
    #[must_use]
    pub fn proto(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp | Self::Tls | Self::Https => "tcp",
        }
    }

    /// True where answers are not bounded by a datagram.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self != Self::Udp
    }
}

/// A query on its way down a chain. Plugins may change `message`; who changes it puts it back for those before it.
#[derive(Clone)]
pub struct Request {
    /// The query; holds exactly one question.
    pub message: Message,
    /// The octets as they came.
    pub raw: Bytes,
    /// Who asks.
    pub client: SocketAddr,
    /// Where the query arrived.
    pub local: SocketAddr,
    /// What carried it.
    pub transport: Transport,
    /// When it arrived.
    pub arrived: Instant,
    /// The server that answers, for plugins that ask again.
    pub instance: Option<Arc<Instance>>,
    /// The listener that it came in by.
    pub listen: Option<crate::instance::Listen>,
    /// The zone of the block that answers; set when the block is chosen.
    pub zone: Name,
    /// How the block is called in metrics, as `dns://:53`.
    pub server: Arc<str>,
    /// The name of the block's view, or nothing.
    pub view: Arc<str>,
    /// What plugins found out about the request for those after them: `kubernetes/namespace` and such.
    pub metadata: Metadata,
    /// True where `metadata` is wanted: plugins that answer add what they find out.
    pub described: bool,
    /// The questions that led to this one, the client's first.
    pub above: Vec<(Name, RecordType)>,
    /// The key that a TSIG record was verified with, if one was.
    pub tsig: Option<Arc<crate::plugin::tsig::Verified>>,
    /// True where an upstream is to name itself (RFC 5001): not the client but the configuration wants it.
    pub asks_nsid: bool,
}

impl Request {
    /// A request that has just arrived. The message must hold one question; a message without one is given the
    /// question for the root's addresses in a class that nobody serves.
    #[must_use]
    pub fn new(
        mut message: Message,
        raw: Bytes,
        client: SocketAddr,
        local: SocketAddr,
        transport: Transport,
    ) -> Self {
        if message.queries.is_empty() {
            let mut nothing = Query::query(Name::root(), RecordType::NULL);
            nothing.set_query_class(DNSClass::NONE);
            message.add_query(nothing);
        }
        Self {
            message,
            raw,
            client,
            local,
            transport,
            arrived: Instant::now(),
            instance: None,
            listen: None,
            zone: Name::root(),
            server: Arc::from(""),
            view: Arc::from(""),
            metadata: Metadata::new(),
            described: false,
            above: Vec::new(),
            tsig: None,
            asks_nsid: false,
        }
    }

    /// The question. Always there: see [`Request::new`].
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "Request::new leaves one question in the list"
    )]
    pub fn question(&self) -> &Query {
        &self.message.queries[0]
    }

    /// The name asked for, in the client's case.
    #[must_use]
    pub fn name(&self) -> &Name {
        self.question().name()
    }

    /// The type asked for.
    #[must_use]
    pub fn kind(&self) -> RecordType {
        self.question().query_type()
    }

    /// The class asked for.
    #[must_use]
    pub fn class(&self) -> DNSClass {
        self.question().query_class()
    }

    /// True if the client wants DNSSEC records (RFC 3225).
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.message
            .edns
            .as_ref()
            .is_some_and(|edns| edns.flags().dnssec_ok)
    }

    /// The greatest answer that the client takes in a datagram, 512 to 65535 octets.
    #[must_use]
    pub fn payload_max(&self) -> u16 {
        self.message.max_payload().max(512)
    }

    /// An empty answer to this request with the given code.
    #[must_use]
    pub fn reply(&self, code: ResponseCode) -> Message {
        reply(&self.message, code)
    }

    /// The same request with another question, one chase deeper.
    ///
    /// # Errors
    ///
    /// When the chase is too deep, or has come back to where it was.
    pub fn ask(&self, name: Name, kind: RecordType) -> Result<Self, Failure> {
        if self.above.len() >= DEPTH_MAX {
            return Err(Failure::new(
                "server",
                format!("{name}: a chain of more than {DEPTH_MAX} aliases"),
            ));
        }
        let present = (self.name().clone(), self.kind());
        let question = (name, kind);
        if question == present || self.above.contains(&question) {
            let (name, _) = question;
            return Err(Failure::new("server", format!("{name}: aliases in a ring")));
        }
        let (name, kind) = question;
        let mut request = self.clone();
        request.above.push(present);
        let mut question = Query::query(name, kind);
        question.set_query_class(self.class());
        request.message.queries = vec![question];
        Ok(request)
    }
}

/// An answer without records to a query.
#[must_use]
pub fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.checking_disabled = query.metadata.checking_disabled;
    message.metadata.response_code = code;
    message.queries.clone_from(&query.queries);
    message
}

/// Adds to an answer that ends in an alias what was told of the alias's target: each record once (RFC 2181 section 5),
/// and where the target is denied, the SOA record that says how long that holds (RFC 2308 section 2).
pub fn append(message: &mut Message, told: Message) {
    let is_alias = |record: &Record| record.record_type() == RecordType::CNAME;
    if told.answers.iter().all(is_alias) {
        let is_soa = |record: &Record| record.record_type() == RecordType::SOA;
        let soa = told.authorities.into_iter().find(is_soa);
        message.authorities.extend(soa);
    }
    let known = message.answers.len();
    for record in told.answers {
        let same = |other: &Record| other.name == record.name && other.data == record.data;
        if !message.answers.iter().take(known).any(same) {
            message.answers.push(record);
        }
    }
}

/// What a chain made of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// One message.
    Answer(Box<Response>),
    /// Several messages on one stream: a zone transfer.
    Stream(Vec<Message>),
    /// Nothing is sent; the reason is for the log and for metrics.
    Silence(&'static str),
}

/// A message to be sent, and who made it.
#[derive(Clone, Debug)]
pub struct Response {
    /// The message. The transport sets its EDNS record, truncates it and writes it.
    pub message: Message,
    /// The plugin that made it, for `coredns_dns_responses_total` and explanations.
    pub plugin: &'static str,
    /// The object behind it where there is one: `Service default/web`.
    pub origin: Option<String>,
}

impl Outcome {
    /// An answer made by a plugin.
    #[must_use]
    pub fn answer(plugin: &'static str, message: Message) -> Self {
        Self::Answer(Box::new(Response {
            message,
            plugin,
            origin: None,
        }))
    }

    /// With the object behind an answer, where somebody wants to know.
    #[must_use]
    pub fn of(mut self, request: &Request, origin: impl FnOnce() -> String) -> Self {
        if let Self::Answer(response) = &mut self
            && request.described
        {
            response.origin = Some(origin());
        }
        self
    }

    /// The message, if there is exactly one.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Answer(response) => Some(&response.message),
            Self::Stream(_) | Self::Silence(_) => None,
        }
    }

    /// The message to change, if there is exactly one.
    pub fn message_mut(&mut self) -> Option<&mut Message> {
        match self {
            Self::Answer(response) => Some(&mut response.message),
            Self::Stream(_) | Self::Silence(_) => None,
        }
    }
}

/// Why no plugin could answer. The client gets `code`; the rest is for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("plugin/{plugin}: {cause}")]
pub struct Failure {
    /// What the client is told.
    pub code: ResponseCode,
    /// Who failed.
    pub plugin: &'static str,
    /// What happened, for the operator.
    pub cause: String,
}

impl Failure {
    /// A failure that the client sees as SERVFAIL.
    #[must_use]
    pub fn new(plugin: &'static str, cause: impl Into<String>) -> Self {
        Self {
            code: ResponseCode::ServFail,
            plugin,
            cause: cause.into(),
        }
    }

    /// A failure that the client sees as the given code.
    #[must_use]
    pub fn code(plugin: &'static str, code: ResponseCode, cause: impl Into<String>) -> Self {
        Self {
            code,
            plugin,
            cause: cause.into(),
        }
    }
}

/// What serving ends in.
pub type Served = Result<Outcome, Failure>;
