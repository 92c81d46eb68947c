//! Bodies on their way out and in, counted as they move.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use crate::retry::Progress;

/// Bytes handed to the connection at a time: small enough that a slow line is seen to move.
const PIECE: usize = 64 * 1024;

/// Replaces the body of a request, after it was signed, by one that counts what goes out.
#[derive(Debug)]
pub(super) struct CountUpload {
    body: Bytes,
    progress: Progress,
}

impl CountUpload {
    /// `body` must be what the request is signed for.
    pub(super) fn new(body: Bytes, progress: Progress) -> Self {
        Self { body, progress }
    }
}

impl Intercept for CountUpload {
    fn name(&self) -> &'static str {
        "CountUpload"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let counted = Upload { left: self.body.clone(), progress: self.progress.clone() };
        *context.request_mut().body_mut() = SdkBody::from_body_1_x(counted);
        Ok(())
    }
}

struct Upload {
    left: Bytes,
    progress: Progress,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.left.len().min(PIECE);
        let piece = self.left.split_to(len);
        self.progress.add(len as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum DownloadError {
    /// More bytes came than allowed.
    TooLarge,
    /// Fewer bytes came than announced.
    Short {
        /// How many came.
        got: u64,
        /// How many were announced.
        announced: u64,
    },
    /// The connection broke.
    Broken(BoxError),
}

/// Reads a body of at most `limit_bytes`, counting what comes in.
pub(super) async fn download(
    mut body: ByteStream,
    announced: Option<u64>,
    limit_bytes: u64,
    progress: &Progress,
) -> Result<Bytes, DownloadError> {
    // The length is believed only up to a point: memory follows what arrives.
    let room = announced.unwrap_or(0).min(limit_bytes).min(64 << 20);
    let mut bytes = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| DownloadError::Broken(error.into()))?;
        progress.add(piece.len() as u64);
        if (bytes.len() + piece.len()) as u64 > limit_bytes {
            return Err(DownloadError::TooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    let got = bytes.len() as u64;
    match announced {
        Some(announced) if announced != got => Err(DownloadError::Short { got, announced }),
        _ => Ok(bytes.freeze()),
    }
}
