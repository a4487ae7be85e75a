//! Which cores the server has, and which the load.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where server and load run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pinning {
    /// The server has one core, the load another.
    Apart,
    /// Both may use all cores.
    Shared,
}

/// The cores of this machine that may be used, divided.
pub(crate) struct Cores {
    all: CpuSet,
    server: CpuSet,
    load: CpuSet,
    /// How many there are.
    pub count: u32,
}

impl Cores {
    /// Gives the first core to servers and the second to the load. Where there is one only, they
    /// share it.
    pub(crate) fn divide() -> io::Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut numbers = (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number));
        let first = numbers.next().unwrap_or_default();
        let only = |number: usize| {
            let mut set = CpuSet::new();
            set.set(number);
            set
        };
        let (server, load) = (only(first), only(numbers.next().unwrap_or(first)));
        Ok(Self { all, server, load, count: all.count() })
    }

    /// Lets this thread, and what it starts from now on, run where the load does.
    pub(crate) fn take_load(&self, pinning: Pinning) -> io::Result<()> {
        sched_setaffinity(None, if pinning == Pinning::Apart { &self.load } else { &self.all })?;
        Ok(())
    }

    /// Lets this thread, and what it starts from now on, run where servers do.
    pub(crate) fn take_server(&self, pinning: Pinning) -> io::Result<()> {
        sched_setaffinity(None, if pinning == Pinning::Apart { &self.server } else { &self.all })?;
        Ok(())
    }
}
