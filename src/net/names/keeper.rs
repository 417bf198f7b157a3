//! The task that owns one name: it alone asks the resolver, and keeps the answer fresh as long as the name is used.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    FOREVER, Known, Name, Place,
    source::{Failure, Fault, Found, Source},
};

/// A name is kept fresh for so long after its last use; longer than the cores' rounds, in which they sign for kept connections.
const IN_USE: Duration = Duration::from_secs(15);
/// After so long a failure is looked into again.
const RETRY: Duration = Duration::from_secs(1);
/// A resolver that takes longer is not waited for where there is an earlier answer (RFC 8767 section 5).
const SLOW: Duration = Duration::from_secs(1);
/// For so long after its end an answer is used when the resolver gives no other.
const STALE: Duration = Duration::from_secs(300);
/// An address is gone once the answers have been without it for so long, and two at least: one that comes back with the second
/// costs no kept connections. The second is asked for after this time, however long the first may be used.
const GRACE: Duration = Duration::from_secs(5);
/// Addresses of one name that are used; more are left out.
const MOST: usize = 16;

/// Keeps `name` until the runtime ends.
pub(super) async fn keep(name: Arc<Name>, source: Arc<Source>) {
    let mut keeper = Keeper::of(name);
    loop {
        keeper.wait_for_need().await;
        keeper.look_up(&source).await;
    }
}

struct Keeper {
    name: Arc<Name>,
    /// The last good answer.
    places: Arc<[Arc<Place>]>,
    /// When that was out of date, or will be.
    good_until: Option<Instant>,
    /// What the last answers were without.
    leaving: Vec<Leaving>,
    /// The resolver gives no answers; told once.
    away: bool,
}

/// An address that the last answer was without.
struct Leaving {
    place: Arc<Place>,
    since: Instant,
    /// The answer before was without it too.
    is_confirmed: bool,
}

impl Keeper {
    fn of(name: Arc<Name>) -> Self {
        Self { name, places: Vec::new().into(), good_until: None, leaving: Vec::new(), away: false }
    }

    /// Until what is known is out of date and somebody wants more.
    async fn wait_for_need(&mut self) {
        loop {
            let now = Instant::now();
            self.let_go(now);
            let until = self.name.known.borrow().as_ref().map(|known| known.until);
            let is_fresh = until.is_some_and(|until| now < until);
            if !is_fresh && self.name.used.is_within(IN_USE) {
                return;
            }
            let leaves = self.leaving.iter().filter(|l| l.is_confirmed).map(|l| l.since + GRACE);
            let wakes = leaves.chain(until.filter(|_| is_fresh)).min().unwrap_or(now + FOREVER);
            // Asked, or time has passed: what that means is looked at above.
            let _ = tokio::time::timeout_at(wakes.into(), self.name.used.asked.notified()).await;
        }
    }

    /// Marks addresses that have been away for long enough.
    fn let_go(&mut self, now: Instant) {
        self.leaving.retain(|leaving| {
            let stays = !leaving.is_confirmed || now < leaving.since + GRACE;
            if !stays {
                leaving.place.set_gone(true);
            }
            stays
        });
    }

    async fn look_up(&mut self, source: &Arc<Source>) {
        let name = Arc::clone(&self.name);
        let mut looking = pin!(source.look_up(&name.host, name.family));
        let result = if let Ok(result) = tokio::time::timeout(SLOW, &mut looking).await {
            result
        } else {
            if let Some(end) = self.stale_until(Instant::now()) {
                self.publish(Ok(Arc::clone(&self.places)), end);
            }
            looking.await
        };
        self.conclude(result, Instant::now());
    }

    fn conclude(&mut self, result: Result<Found, Failure>, now: Instant) {
        match result {
            Ok(found) => self.accept(found, now),
            Err(failure) if failure.fault == Fault::Away && self.stale_until(now).is_some() => {
                self.tell_away(&failure.why);
                self.publish(Ok(Arc::clone(&self.places)), now + RETRY);
            }
            Err(failure) => {
                tracing::debug!(name = self.name.host, "not resolved: {}", failure.why);
                if failure.fault == Fault::Name {
                    // An answer too: the one before may not come back when the resolver fails next.
                    self.good_until = None;
                }
                self.publish(Err(failure), now + RETRY);
            }
        }
    }

    /// Until when the last good answer may still be used.
    fn stale_until(&self, now: Instant) -> Option<Instant> {
        self.good_until.map(|until| until + STALE).filter(|end| now < *end)
    }

    fn tell_away(&mut self, why: &str) {
        if !std::mem::replace(&mut self.away, true) {
            let name = &self.name.host;
            tracing::warn!(
                "the resolver gives no answer for {name} ({why}); its last addresses are used for up to {STALE:?}"
            );
        }
    }

    fn accept(&mut self, found: Found, now: Instant) {
        if std::mem::take(&mut self.away) {
            tracing::info!("the resolver answers for {} again", self.name.host);
        }
        let known = |ip| self.places.iter().chain(self.leaving.iter().map(|l| &l.place)).find(|p| p.ip == ip);
        let mut places: Vec<Arc<Place>> = Vec::with_capacity(found.addresses.len());
        for ip in found.addresses {
            if places.len() < MOST && !places.iter().any(|place| place.ip == ip) {
                places.push(known(ip).map_or_else(|| Place::new(ip, &self.name.used), Arc::clone));
            }
        }
        let is_there = |place: &Arc<Place>| places.iter().any(|p| Arc::ptr_eq(p, place));
        self.leaving.retain(|leaving| !is_there(&leaving.place));
        for leaving in &mut self.leaving {
            leaving.is_confirmed = true;
        }
        let leaves = |place: &Arc<Place>| Leaving { place: Arc::clone(place), since: now, is_confirmed: false };
        let left: Vec<_> = self.places.iter().filter(|p| !is_there(p)).map(leaves).collect();
        if !left.is_empty() || places.len() != self.places.len() {
            let addresses: Vec<_> = places.iter().map(|place| place.ip).collect();
            tracing::debug!(name = self.name.host, ?addresses, ttl = ?found.ttl, "resolved");
        }
        let lasts = if left.is_empty() { found.ttl } else { found.ttl.min(GRACE) };
        self.leaving.extend(left);
        self.places = places.into();
        self.good_until = Some(now + found.ttl);
        self.publish(Ok(Arc::clone(&self.places)), now + lasts);
    }

    fn publish(&self, result: Result<Arc<[Arc<Place>]>, Failure>, until: Instant) {
        self.name.known.send_replace(Some(Known { result, until }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::IpFamily;

    const SECOND: Duration = Duration::from_secs(1);

    fn keeper() -> Keeper {
        Keeper::of(Name::new("api.example", IpFamily::Any, None))
    }

    /// What is known after an answer with these last octets.
    fn accept(keeper: &mut Keeper, octets: &[u8], now: Instant) -> Vec<Arc<Place>> {
        let addresses = octets.iter().map(|octet| [192, 0, 2, *octet].into()).collect();
        keeper.accept(Found { addresses, ttl: SECOND }, now);
        keeper.name.known.borrow().clone().and_then(|known| known.result.ok()).expect("published").to_vec()
    }

    #[test]
    fn an_address_is_gone_once_answers_have_been_without_it_for_a_while() {
        let (mut keeper, start) = (keeper(), Instant::now());
        let first = accept(&mut keeper, &[1, 2], start);
        let second = accept(&mut keeper, &[2, 3], start + SECOND);
        assert!(Arc::ptr_eq(&first[1], &second[0]), "it stays the same");
        // Its turn comes again before the time is over.
        let third = accept(&mut keeper, &[3, 1], start + SECOND * 4);
        assert!(Arc::ptr_eq(&first[0], &third[1]));
        accept(&mut keeper, &[3, 1], start + SECOND * 5);
        keeper.let_go(start + SECOND * 8);
        assert!(![&first[0], &first[1], &second[1]].into_iter().any(|place| place.is_gone()));
        keeper.let_go(start + SECOND * 9);
        assert_eq!([&first[0], &first[1], &second[1]].map(|place| place.is_gone()), [false, true, false]);
        // What comes back later is another one: connections to the former stay retired.
        let fourth = accept(&mut keeper, &[2], start + SECOND * 10);
        assert!(first[1].is_gone() && !fourth[0].is_gone());
    }

    #[test]
    fn one_answer_without_an_address_is_not_enough_and_the_next_is_asked_for_soon() {
        let (mut keeper, start) = (keeper(), Instant::now());
        let first = accept(&mut keeper, &[1], start);
        let without = Found { addresses: vec![[192, 0, 2, 2].into()], ttl: SECOND * 3600 };
        keeper.conclude(Ok(without.clone()), start + SECOND);
        assert_eq!(keeper.name.known.borrow().as_ref().map(|known| known.until), Some(start + SECOND + GRACE));
        keeper.let_go(start + SECOND * 60);
        assert!(!first[0].is_gone());
        // With the resolver away nothing more is known.
        keeper.conclude(Err(Failure { fault: Fault::Away, why: "SERVFAIL".to_owned() }), start + SECOND * 60);
        keeper.let_go(start + SECOND * 61);
        assert!(!first[0].is_gone());
        keeper.conclude(Ok(without), start + SECOND * 62);
        assert_eq!(keeper.name.known.borrow().as_ref().map(|known| known.until), Some(start + SECOND * 3662));
        keeper.let_go(start + SECOND * 62);
        assert!(first[0].is_gone());
    }

    #[test]
    fn an_address_counts_once_and_only_so_many_do() {
        let (mut keeper, now) = (keeper(), Instant::now());
        assert_eq!(accept(&mut keeper, &[1, 2, 1, 1], now).len(), 2);
        assert_eq!(accept(&mut keeper, &(0..200).collect::<Vec<u8>>(), now).len(), MOST);
    }

    #[test]
    fn the_last_answer_stands_in_for_a_while_and_no_longer() {
        let (mut keeper, start) = (keeper(), Instant::now());
        assert_eq!(keeper.stale_until(start), None, "there was none");
        accept(&mut keeper, &[1], start);
        assert_eq!(keeper.stale_until(start + SECOND * 2), Some(start + SECOND + STALE));
        assert_eq!(keeper.stale_until(start + SECOND + STALE), None);
    }

    #[test]
    fn a_name_that_has_gone_does_not_come_back_when_the_resolver_fails() {
        let (mut keeper, start) = (keeper(), Instant::now());
        let is_known = |keeper: &Keeper| keeper.name.known.borrow().as_ref().is_some_and(|known| known.result.is_ok());
        let away = || Err(Failure { fault: Fault::Away, why: "SERVFAIL".to_owned() });
        accept(&mut keeper, &[1], start);
        keeper.conclude(away(), start + SECOND);
        assert!(is_known(&keeper), "the last answer stands in");
        keeper.conclude(Err(Failure::of_name("NXDOMAIN")), start + SECOND * 2);
        assert!(!is_known(&keeper));
        keeper.conclude(away(), start + SECOND * 3);
        assert!(!is_known(&keeper));
        assert_eq!(keeper.stale_until(start + SECOND * 3), None, "nor where it is slow");
        accept(&mut keeper, &[1], start + SECOND * 4);
        keeper.conclude(away(), start + SECOND * 5);
        assert!(is_known(&keeper));
    }
}
