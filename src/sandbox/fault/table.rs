//! What is armed: standing faults, laid over each other, and limited ones, used up in order.

use super::{Fault, FaultSpec};
use crate::sandbox::provider::{Provider, Side};

/// More than this many orders at once are refused: memory is bounded.
pub(in crate::sandbox) const MAX_ARMED: usize = 1000;

/// The armed faults of one sandbox.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Table(Vec<FaultSpec>);

impl Table {
    /// Arms one; false where too many are armed.
    pub(in crate::sandbox) fn arm(&mut self, order: FaultSpec) -> bool {
        if order.fault == Fault::default() {
            return true;
        }
        if self.0.len() >= MAX_ARMED {
            return false;
        }
        self.0.push(order);
        true
    }

    /// Clears those that are aimed at (part of) this target; `None` = all.
    pub(in crate::sandbox) fn clear(&mut self, provider: Option<Provider>, side: Option<Side>) {
        let meets = |order: &FaultSpec| {
            (provider.is_none() || order.provider.is_none() || provider == order.provider)
                && (side.is_none() || order.side.is_none() || side == order.side)
        };
        self.0.retain(|order| !meets(order));
    }

    /// How many are armed.
    pub(in crate::sandbox) fn len(&self) -> usize {
        self.0.len()
    }

    /// What happens to one request: all standing faults, and the oldest limited one on top.
    pub(in crate::sandbox) fn take(&mut self, provider: Provider, side: Side, path: &str) -> Fault {
        let meets = |order: &FaultSpec| {
            order.provider.is_none_or(|p| p == provider)
                && order.side.is_none_or(|s| s == side)
                && order.path.as_deref().is_none_or(|p| path.contains(p))
        };
        let mut fault = Fault::default();
        for standing in self.0.iter().filter(|o| o.times.is_none() && meets(o)) {
            fault.lay_over(&standing.fault);
        }
        if let Some(limited) = self.0.iter_mut().find(|o| o.times.is_some_and(|n| n > 0) && meets(o)) {
            fault.lay_over(&limited.fault);
            limited.times = limited.times.map(|n| n - 1);
        }
        self.0.retain(|o| o.times != Some(0));
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::super::Answer;
    use super::*;

    fn table(specs: &[&str]) -> Table {
        let mut table = Table::default();
        for spec in specs {
            assert!(table.arm(spec.parse().unwrap()));
        }
        table
    }

    #[test]
    fn limited_faults_are_used_up_in_order_over_the_standing_ones() {
        let mut table =
            table(&["ipxo.idp=ttl:3", "ipxo.idp=status:503,times:2", "*.*=status:429,times:1", "pax8.idp=down"]);
        let mut next = || table.take(Provider::Ipxo, Side::Idp, "/ipxo/oauth2/token");
        let answers: Vec<_> = (0..4)
            .map(|_| {
                let fault = next();
                assert!(fault.ttl.is_some() && fault.wire.is_none());
                fault.answer
            })
            .collect();
        let status = |n| Some(Answer::Status(n));
        assert_eq!(answers, [status(503), status(503), status(429), None]);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_fault_reaches_only_its_target_and_paths() {
        let mut table = table(&["mythic.api=hang,path:/dns/"]);
        assert_eq!(table.take(Provider::MythicBeasts, Side::Idp, "/mythic/dns/"), Fault::default());
        assert_eq!(table.take(Provider::MythicBeasts, Side::Api, "/mythic/beta"), Fault::default());
        assert_ne!(table.take(Provider::MythicBeasts, Side::Api, "/mythic/dns/v2"), Fault::default());
        table.clear(Some(Provider::Ipxo), None);
        assert_eq!(table.len(), 1);
        table.clear(Some(Provider::MythicBeasts), Some(Side::Api));
        assert_eq!(table.len(), 0);
    }
}
