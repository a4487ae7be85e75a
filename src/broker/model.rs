//! A kept session against a model: whatever comes and goes, nothing that was acknowledged to its
//! publisher is lost, nothing comes twice on one connection or out of order, and ids are as promised.

use std::collections::{BTreeMap, BTreeSet};

use mqtt::QoS;
use proptest::prelude::*;

use super::tests::{Rig, delivery};
use super::{Link, Queued, packet_id};

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    /// A connection takes the session, from whichever has it.
    Attach,
    Take(usize),
    Load,
    /// The client acknowledges one of those on their way; with QoS 2 first that it has it.
    Acknowledge(prop::sample::Index),
    Detach,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..3).prop_map(Step::Publish),
        2 => Just(Step::Attach),
        5 => (0_usize..4).prop_map(Step::Take),
        3 => Just(Step::Load),
        5 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        1 => Just(Step::Detach),
        1 => Just(Step::Restart),
    ]
}

/// What the client has not acknowledged to the end.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Left {
    Message(QoS),
    Release,
}

struct Client {
    rig: Rig,
    link: Option<Link>,
    published: u32,
    /// What was published when the program ended last.
    restarted: u32,
    /// Messages with QoS 1 and 2 that are not acknowledged.
    left: BTreeMap<u32, Left>,
    /// The packet id of each that was sent.
    ids: BTreeMap<u32, u16>,
    /// What is on its way on this connection: by packet id the message, its number and its bytes.
    flying: BTreeMap<u16, (u32, u64, usize)>,
    /// The last messages on this connection with QoS 0, and with QoS 1 and 2: the former may overtake
    /// what waits in the store ([MQTT-4.6.0-6]).
    last: [Option<u32>; 2],
}

impl Client {
    async fn new() -> Self {
        let rig = Rig::new();
        let link = rig.begin("a");
        rig.subscribe(&link, "t", 2).await;
        let (left, ids, flying) = Default::default();
        Self {
            rig,
            link: Some(link),
            published: 0,
            restarted: 0,
            left,
            ids,
            flying,
            last: [None; 2],
        }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Publish(qos) => {
                let (number, qos) = (self.published, QoS::from_bits(qos).expect("a level"));
                self.published += 1;
                self.rig.publish("t", &number.to_be_bytes(), qos, false).await;
                if qos != QoS::AtMostOnce {
                    self.left.insert(number, Left::Message(qos));
                }
            }
            Step::Attach => self.attach(),
            Step::Take(window) => drop(self.take(window)),
            Step::Load => {
                if let Some(link) = self.link.clone() {
                    self.rig.broker.load_more(link).await.expect("read");
                }
            }
            Step::Acknowledge(index) if !self.flying.is_empty() => {
                let pkids: Vec<_> = self.flying.keys().copied().collect();
                self.acknowledge(*index.get(&pkids)).await;
            }
            Step::Acknowledge(_) => {}
            Step::Detach => {
                if let Some(link) = self.link.take() {
                    self.rig.broker.leave(link, 1000, Vec::new(), super::tests::NOW);
                }
            }
            Step::Restart => {
                self.rig.settle().await;
                (self.link, self.restarted) = (None, self.published);
                let held = self.rig.held();
                self.rig = Rig::on(self.rig.store.clone());
                assert_eq!(self.rig.held(), held);
            }
        }
    }

    fn attach(&mut self) {
        self.link = Some(self.rig.resume("a").expect("kept"));
        self.flying.clear();
        self.last = [None; 2];
    }

    /// Takes what comes; whether something came, or is in the store.
    fn take(&mut self, window: usize) -> bool {
        let Some(link) = &self.link else { return false };
        let mut queued = Vec::new();
        let in_use = |pkid| self.flying.contains_key(&pkid);
        let taken = self.rig.broker.take(link, (window, &in_use), usize::MAX, &mut queued);
        assert!(!taken.gone);
        let counts =
            queued.iter().filter_map(delivery).filter(|d| d.qos != QoS::AtMostOnce).count();
        assert!(counts <= window);
        let some = taken.stored || !queued.is_empty();
        for queued in queued {
            match queued {
                Queued::Delivery(delivery) => {
                    let payload = delivery.message.payload().try_into().expect("a number");
                    let number = u32::from_be_bytes(payload);
                    let last = &mut self.last[usize::from(delivery.qos != QoS::AtMostOnce)];
                    assert!(*last < Some(number), "{number} behind {last:?}");
                    *last = Some(number);
                    if delivery.qos == QoS::AtMostOnce {
                        continue;
                    }
                    assert_eq!(self.left.get(&number), Some(&Left::Message(delivery.qos)));
                    let pkid = packet_id(delivery.seq);
                    // After a restart, it may have been sent.
                    let (sent, may_be) = (self.ids.contains_key(&number), number < self.restarted);
                    assert!(delivery.dup == sent || (may_be && delivery.dup), "{number}");
                    assert_eq!(*self.ids.entry(number).or_insert(pkid), pkid, "{number}");
                    let flies = (number, delivery.seq, delivery.row_len());
                    assert_eq!(self.flying.insert(pkid, flies), None, "an id that is in use");
                }
                Queued::Release(seq) => {
                    let pkid = packet_id(seq);
                    let is = |(number, id): &(&u32, &u16)| {
                        **id == pkid && self.left.get(number) == Some(&Left::Release)
                    };
                    let (number, _) = self.ids.iter().find(is).expect("a message that was taken");
                    let flies = (*number, seq, super::RELEASE_BYTES);
                    assert_eq!(self.flying.insert(pkid, flies), None, "an id that is in use");
                }
            }
        }
        some
    }

    async fn acknowledge(&mut self, pkid: u16) {
        let Some(link) = &self.link else { return };
        let (number, seq, bytes) = self.flying[&pkid];
        if self.left[&number] == Left::Message(QoS::ExactlyOnce) {
            let taken = self.rig.broker.taken(link, seq, bytes);
            taken.expect("room").await.expect("stored");
            self.left.insert(number, Left::Release);
            self.flying.insert(pkid, (number, seq, super::RELEASE_BYTES));
        } else {
            self.rig.broker.acknowledged(link, seq, bytes);
            self.left.remove(&number);
            self.flying.remove(&pkid);
        }
    }

    /// At last everything comes.
    async fn drain(&mut self) {
        self.attach();
        while self.take(3) || !self.flying.is_empty() {
            self.run(Step::Load).await;
            for pkid in self.flying.keys().copied().collect::<BTreeSet<_>>() {
                self.acknowledge(pkid).await;
            }
        }
        assert_eq!(self.left, BTreeMap::new(), "lost");
        assert_eq!(self.rig.held(), [1, 1, 0], "of sessions, subscriptions, bytes that wait");
        self.rig.broker.leave(
            self.link.take().expect("attached"),
            1000,
            Vec::new(),
            super::tests::NOW,
        );
        self.rig.settle().await;
        self.rig.broker.forget(&super::tests::owner("a"), &|| true);
        assert_eq!(self.rig.held(), [0; 3]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn a_kept_session_is_what_is_promised(steps in prop::collection::vec(step(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let mut client = Client::new().await;
            for step in steps {
                client.run(step).await;
            }
            client.drain().await;
        });
    }
}
