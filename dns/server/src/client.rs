//! Questions that the server asks on its own behalf, one at a time: SOA checks, notifications, zone transfers.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::plugin::code_name;
use crate::plugin::forward::connection;

/// Records that a transfer may bring.
const RECORDS_MAX: usize = 10_000_000;

/// A whole transfer may take this long.
const TRANSFER: Duration = Duration::from_secs(120);

/// Asks by datagram and waits for the answer.
///
/// # Errors
///
/// When none comes in time, or it cannot be read.
pub async fn datagram(
    server: SocketAddr,
    query: &Message,
    wait: Duration,
) -> Result<Message, String> {
    let mut query = query.clone();
    query.metadata.id = connection::random_id();
    let octets = query.to_vec().map_err(|error| error.to_string())?;
    let belongs = |answer: &Message| answer.metadata.id == query.metadata.id;
    let asked = connection::datagram(server, None, &octets, 4096, &belongs);
    match tokio::time::timeout(wait, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Asks by a stream and waits for the answer.
async fn stream(server: SocketAddr, query: &Message) -> Result<Message, String> {
    let io = |error: std::io::Error| error.to_string();
    let mut query = query.clone();
    query.metadata.id = connection::random_id();
    let octets = query.to_vec().map_err(|error| error.to_string())?;
    let length = u16::try_from(octets.len()).map_err(|_| "the query is too long")?;
    let mut stream = connection::tcp(server, None).await.map_err(io)?;
    let framed = [&length.to_be_bytes(), octets.as_slice()].concat();
    stream.write_all(&framed).await.map_err(io)?;
    let length = stream.read_u16().await.map_err(io)?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await.map_err(io)?;
    let answer = Message::from_vec(&buffer).map_err(|error| error.to_string())?;
    match answer.metadata.id == query.metadata.id {
        true => Ok(answer),
        false => Err("the answer is another query's".to_owned()),
    }
}

/// The serial of a zone at a server.
///
/// # Errors
///
/// When the server does not tell.
pub async fn serial(server: SocketAddr, zone: &Name) -> Result<u32, String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut query = Message::query();
    query.add_query(Query::query(zone.clone(), RecordType::SOA));
    let serial = |answer: &Message| {
        let mut answers = answer.answers.iter();
        answers.find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial),
            _ => None,
        })
    };
    // Some servers tell of a catalog only by a stream, where the client is who he says (knot does).
    if let Ok(answer) = datagram(server, &query, PATIENCE).await
        && let Some(serial) = serial(&answer)
    {
        return Ok(serial);
    }
    let answer = tokio::time::timeout(PATIENCE, stream(server, &query))
        .await
        .unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
    serial(&answer).ok_or_else(|| {
        let code = code_name(answer.metadata.response_code);
        format!("no SOA of {zone} in the answer ({code})")
    })
}

/// All records of a zone from a server (AXFR), the SOA first and not repeated.
///
/// # Errors
///
/// When the server refuses or the transfer breaks off.
pub async fn transfer(server: SocketAddr, zone: &Name) -> Result<Vec<Record>, String> {
    tokio::time::timeout(TRANSFER, receive(server, zone))
        .await
        .unwrap_or_else(|_| Err("the transfer takes too long".to_owned()))
}

async fn receive(server: SocketAddr, zone: &Name) -> Result<Vec<Record>, String> {
    let io = |error: std::io::Error| error.to_string();
    let mut query = Message::query();
    query.metadata.id = connection::random_id();
    query.add_query(Query::query(zone.clone(), RecordType::AXFR));
    let octets = query.to_vec().map_err(|error| error.to_string())?;
    let mut stream = connection::tcp(server, None).await.map_err(io)?;
    let length = u16::try_from(octets.len()).map_err(|_| "the query is too long")?;
    stream.write_all(&length.to_be_bytes()).await.map_err(io)?;
    stream.write_all(&octets).await.map_err(io)?;
    let mut records: Vec<Record> = Vec::new();
    loop {
        let length = stream.read_u16().await.map_err(io)?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await.map_err(io)?;
        let answer = Message::from_vec(&buffer).map_err(|error| error.to_string())?;
        let code = answer.metadata.response_code;
        if answer.metadata.id != query.metadata.id || code != ResponseCode::NoError {
            return Err(format!("the server answers {}", code_name(code)));
        }
        let is_soa = |record: &Record| record.record_type() == RecordType::SOA;
        for record in answer.answers {
            let Some(first) = records.first() else {
                if !is_soa(&record) {
                    return Err("the transfer does not begin with the SOA".to_owned());
                }
                records.push(record);
                continue;
            };
            if is_soa(&record) && record.data == first.data {
                return Ok(records);
            }
            if records.len() >= RECORDS_MAX {
                return Err(format!("more than {RECORDS_MAX} records"));
            }
            records.push(record);
        }
    }
}
