#![no_main]

use support::fuzz::{MqttFrames, run};

libfuzzer_sys::fuzz_target!(|data: &[u8]| run::<MqttFrames>(data));
