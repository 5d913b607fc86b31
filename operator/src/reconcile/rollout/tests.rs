use super::*;

const PACE: Pace = Pace { observe: Duration::from_secs(5), patience: Duration::from_secs(60) };
const LONG: Duration = Duration::from_secs(100);

pub(super) fn old(node: &str) -> Seen {
    let name = format!("old-{node}");
    let rejections = Some(BTreeMap::new());
    Seen { name: name.into(), node: node.into(), ready: true, so_for: LONG, rejections, ..Seen::default() }
}

pub(super) fn new(node: &str) -> Seen {
    Seen { name: format!("new-{node}").into(), current: true, surged: true, ..old(node) }
}

fn live(nodes: u32) -> Live {
    Live { template: "t2".into(), nodes, ..Live::default() }
}

fn strategy(live: &Live, pods: &[Seen]) -> Strategy {
    decide(Some(live), "t2", pods, PACE, Duration::ZERO).strategy
}

#[test]
fn the_first_proxies_come_all_at_once() {
    let decision = decide(None, "t2", &[], PACE, Duration::ZERO);
    assert_eq!((decision.strategy, decision.stage), (Strategy::Roll(1), Stage::NoRollout));
}

#[test]
fn a_new_template_is_written_before_it_is_rolled() {
    let before = Live { template: "t1".into(), ..live(2) };
    assert_eq!(strategy(&before, &[old("a"), old("b")]), Strategy::Hold);
    let held = Live { holds: true, ..live(2) };
    assert_eq!(strategy(&held, &[old("a"), old("b")]), Strategy::Roll(1));
}

#[test]
fn it_begins_from_a_quiet_state() {
    let held = Live { holds: true, ..live(2) };
    let young = Seen { so_for: Duration::from_secs(1), ..old("b") };
    let pods = [old("a"), young];
    assert_eq!(strategy(&held, &pods), Strategy::Hold);
    let later = decide(Some(&held), "t2", &pods, PACE, Duration::from_secs(10));
    assert_eq!(later.strategy, Strategy::Roll(1), "one that flaps does not hold it up for ever");
    let away = Seen { ready: false, so_for: Duration::from_secs(1), ..old("b") };
    assert_eq!(strategy(&held, &[old("a"), away]), Strategy::Roll(1), "there is nothing to lose there");
    let two = [old("a"), Seen { name: "between".into(), ..old("a") }];
    assert_eq!(strategy(&held, &two), Strategy::Hold);
    assert_eq!(strategy(&live(2), &two), Strategy::Roll(1), "once begun it goes on");
}

#[test]
fn it_grows_with_what_went_well() {
    let names: Vec<_> = (0..40).map(|i| format!("n{i:02}")).collect();
    let surges: Vec<_> = [0, 1, 2, 3, 4, 7, 8, 15, 16, 39]
        .map(|done| {
            let pods: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(i, node)| if i < done { new(node) } else { old(node) })
                .collect();
            strategy(&live(40), &pods)
        })
        .into();
    assert_eq!(surges, [1, 1, 2, 2, 4, 4, 8, 8, 10, 10].map(Strategy::Roll));
}

#[test]
fn what_nobody_has_looked_at_makes_no_step_larger() {
    let names: Vec<_> = (0..40).map(|i| format!("n{i:02}")).collect();
    let later = Timestamp::from_second(60).unwrap();
    let step = |new_at, old_at| {
        let one = |(i, node): (usize, &String)| match i {
            0..8 => Seen { surged: false, created: new_at, ..new(node) },
            _ => Seen { created: old_at, ..old(node) },
        };
        let pods: Vec<_> = names.iter().enumerate().map(one).collect();
        strategy(&live(40), &pods)
    };
    let before = Timestamp::default();
    // While it was stopped eight nodes came, and then somebody took the record off.
    assert_eq!(step(later, before), Strategy::Roll(1));
    // A change is taken back: these eight have never been anything else.
    assert_eq!(step(before, later), Strategy::Roll(8));
}

#[test]
fn a_new_proxy_counts_once_it_is_alone_and_has_proven_itself() {
    let young = Seen { so_for: Duration::from_secs(1), ..new("a") };
    let leaving = Seen { leaving: true, ready: false, ..old("a") };
    let others = ["b", "c", "d", "e", "f", "g", "h"].map(old);
    let with = |first: &[Seen]| {
        let pods: Vec<_> = first.iter().chain(&others).cloned().collect();
        decide(Some(&live(8)), "t2", &pods, PACE, Duration::ZERO)
    };
    let two = [new("a"), leaving.clone(), new("i")];
    assert_eq!(with(&two).strategy, Strategy::Roll(2), "one that drains is as good as gone");
    assert_eq!(with(&[young, new("i")]).strategy, Strategy::Roll(1));
    assert_eq!(with(&[new("a"), old("a"), new("i")]).strategy, Strategy::Roll(1));
    assert_eq!(with(&two).stage, Stage::Rolling { updated: 2, nodes: 9, lost: 0 });
    assert_eq!(with(&[leaving]).served, 7);
}

#[test]
fn it_is_complete_when_no_old_one_stays() {
    let leaving = Seen { leaving: true, ..old("b") };
    let decision = decide(Some(&live(2)), "t2", &[new("a"), new("b"), leaving], PACE, Duration::ZERO);
    assert_eq!((decision.strategy, decision.stage), (Strategy::Roll(1), Stage::Complete));
}

#[test]
fn a_failure_is_kept_until_the_template_changes() {
    let crashing =
        Seen { ready: false, trouble: Some(("CrashLoopBackOff".into(), "exit 1".into())), ..new("a") };
    let pods = [old("a"), crashing, old("b")];
    let paused = decide(Some(&live(2)), "t2", &pods, PACE, Duration::ZERO);
    assert_eq!(paused.strategy, Strategy::Hold);
    let record = paused.failed().unwrap().clone();
    // The pod that failed has gone, and another leader looks.
    let live = Live { holds: true, failed: Some(record.clone()), ..live(2) };
    let still = decide(Some(&live), "t2", &[old("a"), old("b")], PACE, Duration::ZERO);
    assert_eq!((still.strategy, still.failed()), (Strategy::Hold, Some(&record)));
    // Whatever takes the old ones, there is nothing left to keep then.
    let all_new = decide(Some(&live), "t2", &[new("a"), new("b")], PACE, Duration::ZERO);
    assert_eq!((all_new.strategy, all_new.stage), (Strategy::Roll(1), Stage::Complete));
    // The former template: every proxy is of it already.
    let back = decide(Some(&live), "t1", &[new("a"), new("b")], PACE, Duration::ZERO);
    assert_eq!((back.strategy, back.failed()), (Strategy::Hold, None));
    let written = Live { template: "t1".into(), failed: None, ..live };
    let done = decide(Some(&written), "t1", &[new("a"), new("b")], PACE, Duration::ZERO);
    assert_eq!((done.strategy, done.stage), (Strategy::Roll(1), Stage::Complete));
}

#[test]
fn a_node_that_is_away_holds_nothing_up_and_is_not_looked_at_all_the_time() {
    let away = |seen: Seen| Seen { ready: false, rejections: None, ..seen };
    let [was, comes] = [away(old("a")), away(new("a"))];
    let young = Seen { so_for: Duration::from_secs(59), ..comes.clone() };
    let decided = |pods: &[Seen]| decide(Some(&live(3)), "t2", pods, PACE, Duration::ZERO);
    assert_eq!(decided(&[was.clone(), young, old("b"), old("c")]).strategy, Strategy::Roll(1));
    let beside = decided(&[was.clone(), comes.clone(), old("b"), old("c")]);
    assert_eq!(beside.strategy, Strategy::Roll(2), "the controller counts it");
    assert!(beside.is_under_way());
    let last = decided(&[was.clone(), comes.clone(), new("b"), new("c")]);
    assert_eq!(last.stage, Stage::Rolling { updated: 2, nodes: 3, lost: 1 });
    assert!(!last.is_under_way());
    // What the kubelet or the scheduler says is another matter.
    let told = Seen { trouble: Some(("ErrImagePull".into(), "no".into())), ..comes };
    assert!(decided(&[was, told, old("b"), old("c")]).failed().is_some());
}

#[test]
fn what_is_in_doubt_is_held_and_not_stopped() {
    let held = hold(&[old("a"), new("a"), old("b")], PACE);
    assert_eq!((held.strategy, held.failed(), held.served), (Strategy::Hold, None, 2));
    assert!(held.is_under_way());
}

#[test]
fn rates_are_of_what_came_since() {
    let carried = |requests, failures| Carried { requests, failures };
    assert_eq!(carried(0, 0).per_thousand(), 0);
    assert_eq!(carried(200, 3).per_thousand(), 15);
    assert_eq!(carried(10, 2).since(carried(4, 1)), carried(6, 1));
    assert_eq!(carried(3, 1).since(carried(4, 1)), carried(3, 1), "it was started again");
}
