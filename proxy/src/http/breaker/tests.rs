mod naive;

use std::sync::Barrier;
use std::thread;

use super::metrics::{Answers, Rolling};
use super::*;

/// A breaker with a clock that is set by hand, in milliseconds.
struct Bench {
    breaker: Breaker,
    start: Instant,
}

impl Bench {
    fn new(expression: &str) -> Self {
        let start = Instant::now();
        Self { breaker: Breaker::starting(&expression.parse().unwrap(), start), start }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn passes(&self, millis: u64) -> bool {
        self.breaker.admit(self.at(millis)) == Admission::Pass
    }

    fn record(&self, millis: u64, status: u16) {
        self.breaker.record(self.at(millis), status, Duration::ZERO);
    }

    fn state(&self, millis: u64) -> State {
        self.breaker.state(self.at(millis))
    }

    /// One that opened at `millis`.
    fn tripped_at(millis: u64) -> Self {
        let bench = Self::new(ERRORS);
        bench.record(millis, 502);
        assert_eq!(bench.state(millis), State::Open);
        bench
    }
}

const ERRORS: &str = "NetworkErrorRatio() > 0.5";
const SERVER_ERRORS: &str = "ResponseCodeRatio(500, 600, 0, 600) > 0.5";

#[test]
fn opens_when_the_condition_holds_and_not_before() {
    let bench = Bench::new(ERRORS);
    for (millis, status) in [(0, 200), (100, 504), (200, 500), (300, 502)] {
        assert!(bench.passes(millis));
        bench.record(millis, status);
        assert_eq!(bench.state(millis), State::Closed, "two of four at most");
    }
    assert!(bench.passes(400));
    bench.record(400, 504);
    assert_eq!(bench.state(400), State::Open);
    assert!(!bench.passes(400));
}

#[test]
fn open_for_ten_seconds_then_recovering_for_ten_then_closed() {
    let bench = Bench::tripped_at(500);
    for (millis, state) in [
        (500, State::Open),
        (10_499, State::Open),
        (10_500, State::Recovering),
        (20_499, State::Recovering),
        (20_500, State::Closed),
    ] {
        assert_eq!(bench.state(millis), state, "at {millis} ms");
    }
    for millis in [500, 5_000, 10_499] {
        assert!(!bench.passes(millis));
    }
    for _ in 0..100 {
        assert!(bench.passes(20_500));
    }
}

#[test]
fn a_share_passes_while_recovering_that_grows_from_a_probe_to_all() {
    let bench = Bench::tripped_at(0);
    assert!(bench.passes(10_000), "the probe");
    assert!((0..99).all(|_| !bench.passes(10_000)), "only one");
    // 1000 requests a second.
    let mut passed = [0_u64; 10];
    for millis in 10_000..20_000 {
        passed[usize::try_from(millis / 1000 - 10).unwrap()] += u64::from(bench.passes(millis));
    }
    for (second, passed) in (0..).zip(passed) {
        let expected = 50 + 100 * second;
        assert!(passed.abs_diff(expected) <= 1, "{passed} of 1000 in second {second}");
    }
}

#[test]
fn a_late_first_request_passes_too() {
    assert!(Bench::tripped_at(0).passes(12_345));
}

#[test]
fn opens_again_when_the_probe_fails() {
    let bench = Bench::tripped_at(0);
    assert!(bench.passes(10_001));
    bench.record(10_002, 504);
    assert_eq!(bench.state(10_002), State::Open);
    assert_eq!(bench.state(20_001), State::Open);
    assert!(bench.passes(20_002), "the next probe");
    bench.record(20_003, 200);
    assert_eq!(bench.state(20_003), State::Recovering);
    assert_eq!(bench.state(30_002), State::Closed);
}

#[test]
fn nothing_from_before_the_trip_counts_after_it() {
    let bench = Bench::new(ERRORS);
    for _ in 0..100 {
        bench.record(9_999, 502);
    }
    assert_eq!(bench.state(9_999), State::Open);
    // Passed before the trip, answered after it: while open, and while recovering.
    bench.record(15_000, 504);
    bench.breaker.record(bench.at(20_100), 504, Duration::from_millis(10_101));
    bench.record(20_200, 200);
    assert_eq!(bench.state(20_200), State::Recovering, "one answer, and a good one");
    // Passed after the trip.
    bench.breaker.record(bench.at(20_400), 504, Duration::from_millis(300));
    bench.record(20_500, 504);
    assert_eq!(bench.state(20_500), State::Open);
}

#[test]
fn looks_every_hundred_milliseconds_whoever_comes_along() {
    let bench = Bench::new(ERRORS);
    bench.record(0, 200);
    for millis in [1, 50, 99] {
        bench.record(millis, 502);
        assert!(bench.passes(millis));
    }
    assert!(!bench.passes(100), "the next request looks before it passes");

    let bench = Bench::new(ERRORS);
    bench.record(0, 200);
    bench.record(99, 502);
    bench.record(100, 502);
    assert_eq!(bench.state(100), State::Open, "so does the next answer");
}

#[test]
fn without_an_answer_nothing_holds() {
    let bench = Bench::new("NetworkErrorRatio() < 0.5");
    assert!(bench.passes(0));
    assert!(bench.passes(200));
    bench.record(300, 200);
    assert_eq!(bench.state(300), State::Open);
    assert!(bench.passes(10_300), "the probe, although nothing has been answered since");
}

#[test]
fn answers_count_for_ten_seconds() {
    for (millis, state) in [(9_900, State::Closed), (10_000, State::Open)] {
        let bench = Bench::new(SERVER_ERRORS);
        for _ in 0..100 {
            bench.record(0, 200);
        }
        bench.record(millis, 500);
        assert_eq!(bench.state(millis), state, "at {millis} ms");
    }
}

#[test]
fn ranges_end_before_their_upper_bound() {
    for (status, state) in
        [(499, State::Closed), (500, State::Open), (599, State::Open), (600, State::Closed)]
    {
        let bench = Bench::new("ResponseCodeRatio(500, 600, 0, 1000) > 0.9");
        bench.record(0, status);
        assert_eq!(bench.state(0), state, "{status}");
    }
    let bench = Bench::new("ResponseCodeRatio(200, 300, 900, 900) > 0");
    bench.record(0, 200);
    assert_eq!(bench.state(0), State::Closed, "nothing to divide by is 0");
}

#[test]
fn latency_at_a_quantile() {
    let bench = Bench::new("LatencyAtQuantileMS(90) > 100");
    let answered = |millis, latency| {
        bench.breaker.record(bench.at(millis), 200, Duration::from_millis(latency));
        bench.state(millis)
    };
    for i in 0..9 {
        assert_eq!(answered(1000 + 100 * i, 98), State::Closed);
    }
    assert_eq!(answered(1900, 500), State::Closed, "nine of ten took less");
    assert_eq!(answered(2000, 102), State::Open);
}

#[test]
fn one_range_is_counted_once() {
    let metrics = &mut Metrics::default();
    let text = format!("{SERVER_ERRORS} || {ERRORS} && {ERRORS} || ResponseCodeRatio(0, 600, 500, 600) > 5");
    Condition::new(&text.parse().unwrap(), metrics);
    assert_eq!(metrics.count(Answers::Within { from: 500, to: 600 }), 1);
    assert_eq!(metrics.count(Answers::Within { from: 0, to: 600 }), 2);
    assert_eq!(metrics.count(Answers::NetworkErrors), 3);
    assert_eq!(metrics.count(Answers::All), Metrics::ALL);
    assert_eq!(metrics.count(Answers::Within { from: 1, to: 2 }), 4);
}

#[test]
fn a_rolling_count_forgets_and_takes_no_late_comers() {
    let count = Rolling::default();
    for second in [0, 0, 3, 12] {
        count.add(second);
    }
    assert_eq!([2, 3, 9, 12, 13, 21, 22].map(|second| count.sum(second)), [2, 3, 3, 2, 1, 1, 0]);
    count.add(2);
    assert_eq!(count.sum(12), 2, "that cell now counts second 12");
}

#[test]
fn no_count_is_lost_between_threads() {
    const THREADS: u16 = 8;
    let count = &Rolling::default();
    let metrics = &mut Metrics::default();
    let condition = Condition::new(&"LatencyAtQuantileMS(50) >= 5".parse().unwrap(), metrics);
    let (metrics, second_over) = (&*metrics, &Barrier::new(THREADS.into()));
    let (short, long) = (Duration::from_millis(1), Duration::from_millis(5));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(move || {
                // All come to each cell at once, and from the eleventh second on find old counts in it.
                for second in 0..30 {
                    for i in 0..1_000 {
                        count.add(second);
                        metrics.record(second, 200, if i % 2 == 0 { short } else { long });
                    }
                    second_over.wait();
                }
            });
        }
    });
    assert_eq!(count.sum(29), 80_000);
    assert!(!condition.holds(&metrics.read(29)), "exactly half took less");
    metrics.record(29, 200, long);
    assert!(condition.holds(&metrics.read(29)), "one more tips it: none of 80,000 was lost");
}

#[test]
fn threads_agree_on_one_trip() {
    let bench = &Bench::new(ERRORS);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                for millis in 0..5_000 {
                    if bench.passes(millis) {
                        bench.record(millis, 502);
                    }
                }
            });
        }
    });
    let opened = (0..=5_000).find(|&millis| bench.state(millis + OPEN) == State::Recovering).unwrap();
    assert!((opened..opened + OPEN).all(|millis| bench.state(millis) == State::Open));
    assert_eq!((0..1_000).filter(|_| bench.passes(opened + OPEN)).count(), 1, "one probe");
}
