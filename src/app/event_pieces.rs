//! Ready-made pieces of the stream for those who follow it over HTTP: readers that see and want the
//! same get the same text, which is made once.
//!
//! A piece is good for a moment only. Who may see what is asked for each piece and reader as before:
//! it decides which pieces are a reader's.

use std::collections::VecDeque;
use std::sync::Arc;

use base::limits;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::sight::{News, View};
use crate::events::Filter;

/// What somebody sees and wants of the stream.
#[derive(PartialEq)]
pub(super) struct Audience {
    pub(super) filter: Filter,
    pub(super) view: View,
}

/// What an audience gets of the events behind a number.
#[derive(Clone)]
pub(super) struct Piece {
    /// Server-sent events; empty if there is nothing for this audience.
    pub(super) text: Bytes,
    /// How many events.
    pub(super) events: u32,
    /// Behind this number it goes on.
    pub(super) next: u64,
    /// Whether there is more now.
    pub(super) more: bool,
}

/// The newest pieces.
#[derive(Default)]
pub(super) struct EventPieces(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    pieces: VecDeque<Made>,
    bytes: usize,
}

struct Made {
    audience: Arc<Audience>,
    after: u64,
    at: Instant,
    piece: Piece,
}

/// What there is for somebody behind a number.
pub(super) enum Found {
    /// This piece.
    Piece(Piece),
    /// None; one that ends at this number, if there is one, goes on where others do.
    Nothing(Option<u64>),
}

impl EventPieces {
    /// The piece behind a number.
    pub(super) fn find(&self, audience: &Arc<Audience>, after: u64, now: Instant) -> Found {
        let kept = self.0.lock();
        let mut end = None::<u64>;
        // The newest are mostly those that are asked for.
        for made in kept.pieces.iter().rev() {
            if now - made.at > limits::EVENT_PIECE_GOOD_FOR {
                break;
            }
            if after < made.after || after >= made.piece.next || !made.is_for(audience) {
                continue;
            }
            if made.after == after {
                return Found::Piece(made.piece.clone());
            }
            end = Some(made.piece.next);
        }
        Found::Nothing(end)
    }

    /// Keeps a piece for others.
    pub(super) fn keep(&self, audience: &Arc<Audience>, after: u64, at: Instant, piece: &Piece) {
        let bytes = piece.text.len();
        if bytes > limits::EVENT_PIECES_BYTES_MAX || piece.next == after {
            return;
        }
        let mut kept = self.0.lock();
        kept.bytes += bytes;
        let (audience, piece) = (audience.clone(), piece.clone());
        kept.pieces.push_back(Made { audience, after, at, piece });
        while kept.pieces.len() > limits::EVENT_PIECES_MAX
            || kept.bytes > limits::EVENT_PIECES_BYTES_MAX
        {
            let Some(oldest) = kept.pieces.pop_front() else { break };
            kept.bytes -= oldest.piece.text.len();
        }
    }

    /// Forgets pieces that are of no use any more.
    pub(super) fn expire(&self, now: Instant) {
        let mut kept = self.0.lock();
        while let Some(oldest) = kept.pieces.front()
            && now - oldest.at > limits::EVENT_PIECE_GOOD_FOR
        {
            let bytes = oldest.piece.text.len();
            kept.bytes -= bytes;
            kept.pieces.pop_front();
        }
    }
}

impl Made {
    fn is_for(&self, audience: &Arc<Audience>) -> bool {
        Arc::ptr_eq(&self.audience, audience) || *self.audience == **audience
    }
}

impl Piece {
    /// The text of events.
    pub(super) fn of(news: &News) -> Self {
        Self {
            text: text_of(news).into(),
            events: news.events.len() as u32,
            next: news.next,
            more: news.more,
        }
    }
}

/// Beside an event's own text: its number and its type.
const HEAD_BYTES: usize = 96;

fn text_of(news: &News) -> Vec<u8> {
    let bytes: usize = news.events.iter().map(|event| event.text.len() + HEAD_BYTES).sum();
    let mut text = Vec::with_capacity(if bytes == 0 { 0 } else { bytes + HEAD_BYTES });
    if let Some(first) = news.gone {
        // Of numbers that are not there yet, the reader has to forget its own.
        if news.events.is_empty() {
            text.extend_from_slice(format!("id: {}\n", news.next).as_bytes());
        }
        let resync = format!("event: resync\ndata: {{\"first\":{first}}}\n\n");
        text.extend_from_slice(resync.as_bytes());
    }
    for event in &news.events {
        let head = format!("id: {}\nevent: {}\ndata: ", event.number, event.kind);
        text.extend_from_slice(head.as_bytes());
        text.extend_from_slice(&event.text);
        text.extend_from_slice(b"\n\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Scope;

    fn audience(things: &[&str]) -> Arc<Audience> {
        let things = things.iter().map(|thing| (*thing).to_owned()).collect();
        let filter = Filter { things, ..Filter::default() };
        Arc::new(Audience { filter, view: View::of_all(Scope::All) })
    }

    fn piece(next: u64, bytes: usize) -> Piece {
        Piece { text: vec![b'x'; bytes].into(), events: 1, next, more: false }
    }

    #[test]
    fn readers_of_the_same_get_the_same_piece_or_go_on_where_it_ends() {
        let (pieces, at) = (EventPieces::default(), Instant::now());
        let (all, same, other) = (audience(&[]), audience(&[]), audience(&["a"]));
        pieces.keep(&all, 10, at, &piece(20, 100));
        let find = |audience: &Arc<Audience>, after, at| match pieces.find(audience, after, at) {
            Found::Piece(piece) => (Some(piece.next), None),
            Found::Nothing(end) => (None, end),
        };
        assert_eq!(find(&all, 10, at), (Some(20), None));
        assert_eq!(find(&same, 10, at), (Some(20), None), "as another reader");
        assert_eq!(find(&same, 15, at), (None, Some(20)), "in step from 20 on");
        assert_eq!(find(&same, 20, at), (None, None));
        assert_eq!(find(&same, 9, at), (None, None));
        assert_eq!(find(&other, 10, at), (None, None), "who wants something else");
        let late = at + limits::EVENT_PIECE_GOOD_FOR * 2;
        assert_eq!(find(&all, 10, late), (None, None), "rights may have changed");
        pieces.expire(late);
        assert_eq!(pieces.0.lock().bytes, 0);
    }

    #[test]
    fn they_are_bounded() {
        let (pieces, at) = (EventPieces::default(), Instant::now());
        for number in 0..1000 {
            pieces.keep(&audience(&[]), number, at, &piece(number + 1, 64 * 1024));
        }
        let kept = pieces.0.lock();
        assert!(kept.pieces.len() <= limits::EVENT_PIECES_MAX);
        assert!(kept.bytes <= limits::EVENT_PIECES_BYTES_MAX && kept.bytes > 0);
    }
}
