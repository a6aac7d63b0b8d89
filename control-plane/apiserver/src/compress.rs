//! Large answers as gzip, for clients that say they can read it.

use std::io::Write as _;

use axum::body::{Body, HttpBody as _};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::respond::Answer;

/// Below this many bytes an answer is sent as it is, as with kube-apiserver: small ones cost more time than they save.
const SIZE_MIN: u64 = 128 << 10;

/// The answer to a request of that method and those headers. A body of unknown length, which a watch has, is left alone.
pub(crate) async fn compress(method: &Method, headers: &HeaderMap, answer: Answer) -> Answer {
    let large = answer
        .body()
        .size_hint()
        .exact()
        .is_some_and(|size| size >= SIZE_MIN);
    let fits = large && *method == Method::GET && answer.status() == StatusCode::OK;
    if !fits || answer.headers().contains_key(CONTENT_ENCODING) || !accepts_gzip(headers) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let Ok(plain) = axum::body::to_bytes(body, usize::MAX).await else {
        return Answer::from_parts(parts, Body::empty());
    };
    let packed = {
        let plain = plain.clone();
        tokio::task::spawn_blocking(move || gzip(&plain)).await
    };
    let Ok(Ok(packed)) = packed else {
        return Answer::from_parts(parts, Body::from(plain));
    };
    parts
        .headers
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts
        .headers
        .append(VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    Answer::from_parts(parts, Body::from(packed))
}

fn gzip(plain: &Bytes) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| {
            let (name, quality) = part.split_once(';').unwrap_or((part, ""));
            let refused = quality.trim().strip_prefix("q=").is_some_and(|q| {
                let q: Result<f32, _> = q.trim().parse();
                q.is_ok_and(|q| q <= 0.0)
            });
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    async fn answer(size: usize, accept: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accept));
        let answer = crate::respond::bytes(200, "application/json", vec![b'a'; size]);
        compress(&Method::GET, &headers, answer).await
    }

    #[tokio::test]
    async fn large_answers_are_packed_for_those_who_ask() {
        for (size, accept, packed) in [
            (SIZE_MIN as usize, "gzip", true),
            (SIZE_MIN as usize, "deflate, gzip;q=0.5", true),
            (SIZE_MIN as usize, "gzip;q=0", false),
            (SIZE_MIN as usize, "identity", false),
            (SIZE_MIN as usize - 1, "gzip", false),
        ] {
            let answer = answer(size, accept).await;
            assert_eq!(answer.headers().contains_key(CONTENT_ENCODING), packed);
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX)
                .await
                .unwrap();
            let mut plain = Vec::new();
            if packed {
                assert!(body.len() < size / 100);
                flate2::read::GzDecoder::new(&body[..])
                    .read_to_end(&mut plain)
                    .unwrap();
            } else {
                plain.extend_from_slice(&body);
            }
            assert_eq!(plain, vec![b'a'; size]);
        }
    }
}
