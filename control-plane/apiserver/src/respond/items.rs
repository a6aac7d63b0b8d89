//! The body of a list as it is sent: written piece by piece while the client reads, so that a large list never stands
//! in memory as a whole beside the objects that it is made of.

use std::pin::Pin;
use std::task::{Context, Poll};

use api::table::Resource;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use storage::Entry;

use crate::object::{self, Head};

/// Bytes in a piece: a multiple of the 64 KiB that a connection takes at a time, since what is left of a piece costs a
/// write of its own, and few enough that a piece is still in the processor's cache when it is encrypted.
const PIECE: usize = 192 << 10;
/// What ends a list.
const END: &[u8] = b"]}\n";

/// A list that is being sent.
struct Items {
    row: &'static Resource,
    /// Written and not yet sent: what comes before the items, then what did not fit into the last piece.
    rest: Bytes,
    entries: std::iter::Peekable<std::vec::IntoIter<Entry>>,
    /// Whether the end of the list was written.
    ended: bool,
    /// Bytes not yet sent.
    left: u64,
}

/// A body of `head`, the entries as objects without kind and apiVersion, and the end of a list. The entries are given
/// back where some entry has to be parsed before it is sent, so that nobody knows how long the whole will be.
pub(super) fn body(
    row: &'static Resource,
    head: Vec<u8>,
    entries: Vec<Entry>,
) -> Result<Body, Vec<Entry>> {
    let mut left = head.len() + END.len() + entries.len().saturating_sub(1);
    for entry in &entries {
        match object::untyped_len(row, &entry.value, entry.modified) {
            Some(len) => left += len,
            None => return Err(entries),
        }
    }
    Ok(Body::new(Items {
        row,
        rest: head.into(),
        entries: entries.into_iter().peekable(),
        ended: false,
        left: left as u64,
    }))
}

impl Items {
    fn piece(&mut self) -> Bytes {
        if self.rest.len() < PIECE {
            let next = self.entries.peek().map_or(0, |entry| entry.value.len());
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let mut out = Vec::with_capacity(left.min(PIECE + next + 64));
            out.extend_from_slice(&self.rest);
            self.append(&mut out);
            self.rest = out.into();
        }
        self.rest.split_to(self.rest.len().min(PIECE))
    }

    /// Adds items until there is a piece of them.
    fn append(&mut self, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        while out.len() < PIECE
            && let Some(entry) = self.entries.next()
        {
            object::append(out, self.row, &entry.value, entry.modified, Head::Untyped);
            if self.entries.peek().is_some() {
                out.push(b',');
            }
        }
        if self.entries.peek().is_none() {
            out.extend_from_slice(END);
            self.ended = true;
        }
    }
}

impl HttpBody for Items {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let piece = this.piece();
        if piece.is_empty() {
            // Never: the length was told beforehand. Nobody waits for what will not come.
            this.left = 0;
            return Poll::Ready(None);
        }
        this.left = this.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::Value;
    use std::sync::Arc;
    use storage::Revision;

    use super::*;

    fn row() -> &'static Resource {
        api::table::find("", "v1", "configmaps").unwrap()
    }

    fn entry(number: u64, size: usize) -> Entry {
        let object = serde_json::json!({
            "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": format!("n{number}")},
            "data": {"k": "v".repeat(size)},
        });
        Entry {
            key: Arc::from(format!("/registry/configmaps/a/n{number}")),
            value: object::encode(&object),
            created: Revision(number),
            modified: Revision(number),
        }
    }

    #[tokio::test]
    async fn pieces_make_a_list_of_the_length_told() {
        for (count, size) in [(0, 0), (1, 10), (3, 3 * PIECE), (1000, 500)] {
            let entries: Vec<Entry> = (1..=count).map(|n| entry(n * n, size)).collect();
            let head = b"{\"kind\":\"ConfigMapList\",\"items\":[".to_vec();
            let mut body = body(row(), head, entries).unwrap();
            let told = body.size_hint().exact().unwrap();
            let (mut whole, mut largest) = (Vec::new(), 0);
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(!data.is_empty());
                largest = largest.max(data.len());
                whole.extend_from_slice(&data);
            }
            assert_eq!(whole.len() as u64, told, "{count} of {size}");
            assert!(body.is_end_stream() && largest <= PIECE);
            let list: Value = serde_json::from_slice(&whole).unwrap();
            let items = list["items"].as_array().unwrap();
            assert_eq!(items.len() as u64, count);
            for (item, number) in items.iter().zip(1..) {
                let version = (number * number).to_string();
                assert_eq!(item["metadata"]["resourceVersion"], version);
            }
        }
    }

    #[test]
    fn what_must_be_parsed_has_no_length_beforehand() {
        let mut foreign = entry(1, 1);
        foreign.value = Bytes::from_static(br#"{ "metadata": {}, "kind": "ConfigMap" }"#);
        let given = vec![entry(2, 1), foreign];
        let back = body(row(), Vec::new(), given.clone()).map(|_| ());
        assert_eq!(back, Err(given));
    }
}
