//! The real `compress`, killed at random moments by SIGKILL, SIGINT, SIGTERM and SIGHUP, and begun again until it is done: the files of a
//! result appear together or not at all, they have the bytes of a run that nobody killed, and nothing else is left.
//!
//! A smoke of it is in every run of the tests. `SPARSEVD_KILLS=2000 SPARSEVD_SEED=1 cargo test --release -p sparsevd-cli --test kills --
//! --nocapture` kills that often, and prints what happened.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

mod chains;
mod synthetic;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::number_from_env;

use chains::{CHAINS, Chain, Uninterrupted};
use synthetic::Workplace;

/// Longest time from a signal to the end of the process that is let pass here; a busy machine needs some of it.
const MOST: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Default)]
struct Counts {
    kills: BTreeMap<&'static str, usize>,
    chains: BTreeMap<&'static str, usize>,
    /// Kills that came when the process had ended.
    late: usize,
    /// Chains that had begun to give files their names.
    between: usize,
    /// Kills that left temporary files.
    left: usize,
    slowest: Duration,
}

struct Campaign {
    uninterrupted: Uninterrupted,
    random: Stream,
    counts: Counts,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        Self {
            uninterrupted: Uninterrupted::new(Workplace::new()),
            random: Stream(seed),
            counts: Counts::default(),
        }
    }

    fn draw(&mut self, most: usize) -> usize {
        self.random.bits() as usize % most
    }

    /// Kills a process at a random moment; returns its exit code, `None` where a signal ended it, and what it said.
    fn kill(&mut self, mut child: Child, within: Duration) -> (Option<i32>, String) {
        let share = self.random.unit() * 1.1;
        thread::sleep(within.mul_f64(share));
        let (signal, code) = [
            ("KILL", None),
            ("INT", Some(130)),
            ("TERM", Some(143)),
            ("HUP", Some(129)),
        ][self.draw(4)];
        let twice = self.draw(8) == 0;
        let is_over = child.try_wait().unwrap().is_some();
        let sent = Instant::now();
        if is_over {
            self.counts.late += 1;
        } else {
            *self.counts.kills.entry(signal).or_default() += 1;
            for _ in 0..1 + usize::from(twice) {
                let mut kill = Command::new("kill");
                let id = child.id().to_string();
                let _ = kill
                    .args([&format!("-{signal}"), &id])
                    .stderr(Stdio::null())
                    .status();
            }
        }
        let status = child.wait().unwrap();
        let took = sent.elapsed();
        self.counts.slowest = self.counts.slowest.max(took);
        assert!(took < MOST, "{took:?} from {signal} to the end");
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap_or_default();
        // A process that ends by itself just then has its own code; one that has not begun to handle signals, none.
        let is_done = status.code() == Some(2) && said.contains("exists already");
        let fits = is_done || [Some(0), code, None].contains(&status.code());
        assert!(fits, "{signal}: {status}: {said}");
        (status.code(), said)
    }

    /// What files there are after a kill.
    fn check_outputs(&mut self, chain: &Chain) {
        let (found, has_list) = self.uninterrupted.check_outputs(chain);
        self.counts.left += usize::from(found.keys().any(|n| n.contains(".sparsevd-")));
        self.counts.between += usize::from(has_list);
    }

    /// Runs a chain to its end, killing it a few times.
    fn chain(&mut self, place: usize) {
        let chain = &CHAINS[place];
        self.uninterrupted.clean(chain);
        *self.counts.chains.entry(chain.name).or_default() += 1;
        let within = self.uninterrupted.of(chain).1;
        for _ in 0..1 + self.draw(5) {
            let mut command = self.uninterrupted.command(chain);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            let (code, said) = self.kill(command.spawn().unwrap(), within);
            self.check_outputs(chain);
            if [Some(0), Some(2)].contains(&code) {
                break;
            }
            assert!(!said.contains("panicked"), "{}: {said}", chain.name);
        }
        self.uninterrupted.finish(chain);
    }
}

#[test]
fn killed_runs_end_as_if_nobody_had_killed_them() {
    let most = number_from_env("SPARSEVD_KILLS", 12) as usize;
    let mut campaign = Campaign::new(number_from_env("SPARSEVD_SEED", 0));
    let kills = |c: &Campaign| c.counts.kills.values().sum::<usize>();
    let mut place = 0;
    while kills(&campaign) < most {
        campaign.chain(place % CHAINS.len());
        place += 1;
        if place % 50 == 0 {
            println!("{} kills", kills(&campaign));
        }
    }
    let Counts {
        kills,
        chains,
        late,
        between,
        left,
        slowest,
    } = campaign.counts;
    println!("kills: {kills:?}; chains: {chains:?}");
    println!(
        "{late} came too late, {left} left temporary files, {between} came while files got their names; the slowest end took {slowest:?}"
    );
}
