//! Alternating runs of several contestants, and the ratios between them within each alternation.

use std::path::Path;
use std::time::Duration;

use super::measure::Cost;
use super::peer::Peer;
use super::workload::Workload;

/// The costs of each contestant, one per round.
pub struct Race {
    lanes: Vec<(Peer, Vec<Cost>)>,
}

/// The middle of some values and their ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// The spread of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Spread { median, min: values[0], max: values[values.len() - 1] }
    }
}

/// Where and how a race is run.
pub struct Course<'a> {
    pub baton: &'a Path,
    /// The folder with the workload's files.
    pub folder: &'a Path,
    /// A new data directory for each round, or the same for all.
    pub data: &'a dyn Fn() -> Result<std::path::PathBuf, String>,
    pub width: u32,
    pub workload: Workload,
}

impl Race {
    /// A race that nobody has run yet.
    pub fn new(peers: &[Peer]) -> Race {
        Race { lanes: peers.iter().map(|peer| (*peer, Vec::new())).collect() }
    }

    /// One alternation: each contestant once, in turn.
    pub fn round(&mut self, course: &Course<'_>) -> Result<(), String> {
        for (peer, costs) in &mut self.lanes {
            let data = (course.data)()?;
            costs.push(peer.run(course, &data)?);
        }
        Ok(())
    }

    /// The contestants in their order.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        self.lanes.iter().map(|(peer, _)| *peer)
    }

    /// Seconds by the clock.
    pub fn wall(&self, peer: Peer) -> Spread {
        Spread::of(self.costs(peer).iter().map(|cost| cost.wall.as_secs_f64()))
    }

    /// Seconds of processor time; none for the bare loop.
    pub fn cpu(&self, peer: Peer) -> Option<Spread> {
        let costs = self.costs(peer);
        let counted = costs.iter().any(|cost| cost.cpu > Duration::ZERO);
        counted.then(|| Spread::of(costs.iter().map(|cost| cost.cpu.as_secs_f64())))
    }

    /// The largest process of all rounds, in megabytes of 10⁶ bytes; none for the bare loop.
    pub fn peak_megabytes(&self, peer: Peer) -> Option<f64> {
        let peak = self.costs(peer).iter().map(|cost| cost.peak_bytes).max()?;
        (peak > 0).then_some(peak as f64 / 1e6)
    }

    /// Time by the clock of one relative to another, within each alternation.
    pub fn ratio(&self, peer: Peer, to: Peer) -> Spread {
        let pairs = self.costs(peer).iter().zip(self.costs(to));
        Spread::of(pairs.map(|(one, other)| one.wall.as_secs_f64() / other.wall.as_secs_f64()))
    }

    /// Processor time of one relative to another, within each alternation; none for the bare loop. Other load on the
    /// machine changes it little.
    pub fn cpu_ratio(&self, peer: Peer, to: Peer) -> Option<Spread> {
        self.cpu(peer)?;
        let pairs = self.costs(peer).iter().zip(self.costs(to));
        Some(Spread::of(pairs.map(|(one, other)| one.cpu.as_secs_f64() / other.cpu.as_secs_f64())))
    }

    fn costs(&self, peer: Peer) -> &[Cost] {
        let lane = self.lanes.iter().find(|(other, _)| *other == peer);
        &lane.expect("only contestants of the race are asked for").1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median, 2.0);
    }

    #[test]
    fn a_ratio_is_taken_within_each_alternation() {
        let cost = |millis| Cost { wall: Duration::from_millis(millis), cpu: Duration::ZERO, peak_bytes: 0 };
        let race = Race {
            lanes: vec![
                (Peer::Ninja, vec![cost(100), cost(1_000), cost(100)]),
                (Peer::Baton, vec![cost(50), cost(500), cost(60)]),
            ],
        };
        assert_eq!(race.ratio(Peer::Baton, Peer::Ninja), Spread { median: 0.5, min: 0.5, max: 0.6 });
    }
}
