----------------------------- MODULE Replication -----------------------------
(***************************************************************************)
(* How the copies of one partition stay the same, by the rules of          *)
(* `replication/src/partition` (leader.rs, follower.rs, state.rs) and      *)
(* `engine/broker/src/cluster/members.rs`. Written after the published     *)
(* model of Kafka's replication (Kip320.tla), with what it leaves out:     *)
(* disks that lose what was not flushed, nodes' lives, eligible leader     *)
(* replicas (KIP-966), proposals of the leader that come late, twice or    *)
(* never (KIP-497), and metadata that each node learns in its own time.    *)
(*                                                                         *)
(* `Bugs` takes rules away, by the names that docs/MUTATIONS.md has for    *)
(* them; with each of them TLC finds how a record is lost (`cargo xtask    *)
(* tla`).                                                                  *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets, TLC

CONSTANTS
    Nodes,       \* with a copy each
    None,        \* nobody
    MinIsr,      \* min.insync.replicas
    MaxRecords,  \* that are ever written
    MaxChanges,  \* of the partition's state in the metadata
    MaxCrashes,
    Bugs         \* rules that are not kept

VARIABLES
    meta,       \* the partition's state in the metadata
    news,       \* of each node: what has become of it that the node does not know yet, oldest first
    usable,     \* nodes that are not fenced
    life,       \* which life of each node is registered
    alive,      \* nodes whose process runs
    view,       \* of each node: the partition's state as far as it knows
    log,        \* of each node: its records, [e |-> leader epoch, id |-> which record]
    dur,        \* of each node: so many of them survive a power cut
    hw,         \* of each node: its high watermark, -1 if it knows none
    lead,       \* of each node: what it knows as a leader
    asks,       \* every AlterPartition that was sent and is not out of date
    committed,  \* records that were once below a high watermark
    nextId,
    crashes

vars == <<meta, news, usable, life, alive, view, log, dur, hw, lead, asks, committed, nextId, crashes>>

Has(bug) == bug \in Bugs

Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b
Least(S) == CHOOSE x \in S : \A y \in S : x <= y
Prefix(s, n) == SubSeq(s, 1, n)
IsPrefix(s, t) == Len(s) <= Len(t) /\ Prefix(t, Len(s)) = s

NoLead == [on |-> FALSE, start |-> 0, proposed |-> {}, ends |-> [n \in Nodes |-> -1], lives |-> [n \in Nodes |-> 0]]
NoView == [leader |-> None, epoch |-> -1, pe |-> -1, isr |-> {}, elr |-> {}]
Leads(n) == alive[n] /\ lead[n].on

(* Of a log: the largest epoch that is not above `e`, and its end. *)
EndOfEpoch(l, e) ==
    LET S == {i \in 1..Len(l) : l[i].e <= e}
    IN  IF S = {} THEN [e |-> -1, end |-> 0]
        ELSE LET i == CHOOSE i \in S : \A j \in S : j <= i IN [e |-> l[i].e, end |-> i]

------------------------------------------------------------------------------
(* The metadata: `Change::build`. *)

(* Who keeps what was acknowledged though it leaves an ISR that is too small to acknowledge more. *)
Eligible(isr, lossy) ==
    LET kept == IF Cardinality(meta.isr) >= MinIsr THEN {} ELSE meta.elr
    IN  IF Cardinality(isr) >= MinIsr THEN {} ELSE ((kept \union meta.isr) \ isr) \ lossy

(* Who may be elected. *)
Safe(isr, lossy, mayLead) ==
    {n \in mayLead : n \in isr \/ (isr = {} /\ n \in Eligible(isr, lossy))}

(* `isr` is what is left of it; `lossy` have lost what they had; `mayLead` can serve. *)
Change(isr, lossy, mayLead) ==
    LET safe == Safe(isr, lossy, mayLead)
        anybody == IF Has("unclean-election") /\ mayLead # {} THEN mayLead ELSE {None}
        leaders == IF meta.leader \in safe THEN {meta.leader}
                   ELSE IF safe # {} THEN safe ELSE anybody
    IN  \E leader \in leaders :
        LET newIsr == IF leader # None /\ leader \notin isr THEN {leader} ELSE isr
        IN  /\ meta.pe < MaxChanges
            /\ meta' = [leader |-> leader,
                        epoch  |-> IF leader # meta.leader THEN meta.epoch + 1 ELSE meta.epoch,
                        pe     |-> meta.pe + 1,
                        isr    |-> newIsr,
                        elr    |-> IF Cardinality(newIsr) >= MinIsr THEN {}
                                   ELSE Eligible(isr, lossy) \ newIsr]
            \* whoever is dead learns when it is back
            /\ news' = [n \in Nodes |-> IF alive[n] THEN Append(news[n], meta') ELSE <<>>]
            \* of an earlier partition epoch: passed over whenever it comes
            /\ asks' = {}

Stays == UNCHANGED <<meta, news, asks>>

(* A node is not heard from. *)
Fence(n) ==
    /\ n \in usable
    /\ usable' = usable \ {n}
    /\ UNCHANGED <<life, alive, view, log, dur, hw, lead, committed, nextId, crashes>>
    /\ IF n \in meta.isr THEN Change(meta.isr \ {n}, {}, usable \ {n}) ELSE Stays

(* A node is up to date: it knows of its own new life. *)
Unfence(n) ==
    /\ alive[n] /\ n \notin usable
    /\ usable' = usable \union {n}
    /\ UNCHANGED <<life, alive, view, log, dur, hw, lead, committed, nextId, crashes>>
    /\ IF meta.leader = None THEN Change(meta.isr, {}, usable \union {n}) ELSE Stays

(* The leader's change of the ISR comes to the metadata. *)
AlterPartition(a) ==
    /\ a.pe = meta.pe
    /\ meta.leader = a.leader /\ a.life = life[a.leader]
    /\ a.isr \subseteq usable
    /\ \A n \in a.isr \ meta.isr : a.lives[n] = life[n]
    /\ UNCHANGED <<usable, life, alive, view, log, dur, hw, lead, committed, nextId, crashes>>
    /\ Change(a.isr, {}, usable)

------------------------------------------------------------------------------
(* Lives of nodes: `members::register`. *)

(* A process ends, with or without the power: what was not flushed may be gone. *)
Crash(n) ==
    /\ alive[n] /\ crashes < MaxCrashes
    /\ crashes' = crashes + 1
    /\ alive' = [alive EXCEPT ![n] = FALSE]
    /\ \E left \in dur[n]..Len(log[n]) :
        /\ log' = [log EXCEPT ![n] = Prefix(@, left)]
        /\ dur' = [dur EXCEPT ![n] = left]
        /\ \E known \in {-1, Min(hw[n], left)} : hw' = [hw EXCEPT ![n] = known]
    /\ lead' = [lead EXCEPT ![n] = NoLead]
    /\ view' = [view EXCEPT ![n] = NoView]
    /\ news' = [news EXCEPT ![n] = <<>>]
    /\ UNCHANGED <<meta, usable, life, asks, committed, nextId>>

Start(n, state) ==
    LET nobodyElse == state.isr = {n} /\ state.elr = {}
        known == IF hw[n] >= 0 THEN hw[n] ELSE IF nobodyElse THEN dur[n] ELSE 0
    IN  /\ hw' = [hw EXCEPT ![n] = known]
        /\ lead' = [lead EXCEPT ![n] = [NoLead EXCEPT !.on = TRUE,
                        !.start = IF Has("no-epoch-start") THEN 0 ELSE Len(log[n])]]

(* It starts again, and is registered in a new life: out of sync, if others have copies. *)
Register(n) ==
    /\ ~alive[n]
    /\ alive' = [alive EXCEPT ![n] = TRUE]
    /\ life' = [life EXCEPT ![n] = @ + 1]
    /\ UNCHANGED <<log, dur, committed, nextId, crashes>>
    /\ IF Has("new-life-keeps-leaderships")
       THEN /\ view' = [view EXCEPT ![n] = meta]
            /\ IF meta.leader = n THEN Start(n, meta) ELSE UNCHANGED <<hw, lead>>
            /\ UNCHANGED usable /\ Stays
       ELSE /\ usable' = usable \ {n}
            /\ UNCHANGED <<hw, lead>>
            /\ \/ /\ n \in meta.isr
                  /\ Change(meta.isr \ {n}, {}, usable \ {n})
                  \* it begins with what the metadata says of its new life
                  /\ view' = [view EXCEPT ![n] = meta']
               \/ /\ n \notin meta.isr
                  /\ Stays
                  /\ view' = [view EXCEPT ![n] = meta]

(* A node learns what the metadata says, all of it or part: `Hosted::set_state`. *)
Learn(n) ==
    /\ alive[n]
    /\ \E k \in 1..Len(news[n]) :
        LET state == news[n][k]
            isSame == view[n].epoch = state.epoch /\ view[n].leader = state.leader
        IN  /\ view' = [view EXCEPT ![n] = state]
            /\ news' = [news EXCEPT ![n] = SubSeq(@, k + 1, Len(@))]
            /\ IF isSame
               THEN /\ lead' = [lead EXCEPT ![n].proposed = {}]
                    /\ UNCHANGED <<hw, log, dur>>
               ELSE IF state.leader = n
               THEN Start(n, state) /\ UNCHANGED <<log, dur>>
               ELSE /\ lead' = [lead EXCEPT ![n] = NoLead]
                    /\ hw' = [hw EXCEPT ![n] = Max(@, 0)]
                    /\ IF Has("cut-at-high-watermark")
                       THEN /\ log' = [log EXCEPT ![n] = Prefix(@, Min(Len(@), hw'[n]))]
                            /\ dur' = [dur EXCEPT ![n] = Min(@, hw'[n])]
                       ELSE UNCHANGED <<log, dur>>
    /\ UNCHANGED <<meta, usable, life, alive, asks, committed, nextId, crashes>>

------------------------------------------------------------------------------
(* The log. *)

(* Whoever takes itself for the leader takes records. *)
Write(n) ==
    /\ Leads(n) /\ nextId <= MaxRecords
    /\ log' = [log EXCEPT ![n] = Append(@, [e |-> view[n].epoch, id |-> nextId])]
    /\ nextId' = nextId + 1
    /\ UNCHANGED <<meta, news, usable, life, alive, view, dur, hw, lead, asks, committed, crashes>>

Flush(n) ==
    /\ alive[n] /\ dur[n] < Len(log[n])
    /\ dur' = [dur EXCEPT ![n] = Len(log[n])]
    /\ UNCHANGED <<meta, news, usable, life, alive, view, log, hw, lead, asks, committed, nextId, crashes>>

(* What a leader believes of a follower after its fetch. *)
Counted(f, l) ==
    [lead EXCEPT ![l].ends[f] = IF Has("follower-acks-before-flush") THEN Len(log[f]) ELSE dur[f],
                 ![l].lives[f] = life[f]]

(* A follower fetches, and cuts its log where it has parted from the leader's (KIP-595). *)
Fetch(f, l) ==
    /\ f # l /\ alive[f] /\ ~lead[f].on /\ Leads(l)
    /\ view[f].leader = l
    /\ view[f].epoch = view[l].epoch \/ Has("epochs-unchecked")
    /\ LET own == log[f]
           lastEpoch == IF own = <<>> THEN -1 ELSE own[Len(own)].e
           there == EndOfEpoch(log[l], lastEpoch)
           hasParted == lastEpoch >= 0 /\ (there.e < lastEpoch \/ there.end < Len(own))
           to == Min(EndOfEpoch(own, there.e).end, there.end)
           appended == Append(own, log[l][Len(own) + 1])
       IN  IF hasParted
           THEN /\ log' = [log EXCEPT ![f] = Prefix(@, to)]
                /\ dur' = [dur EXCEPT ![f] = Min(@, to)]
                /\ hw' = [hw EXCEPT ![f] = Min(@, to)]
                /\ lead' = IF Has("parted-followers-count") THEN Counted(f, l) ELSE lead
           ELSE /\ log' = [log EXCEPT ![f] = IF Len(own) < Len(log[l]) THEN appended ELSE @]
                /\ hw' = [hw EXCEPT ![f] = Max(@, Min(hw[l], Len(log'[f])))]
                /\ lead' = Counted(f, l)
                /\ UNCHANGED dur
    /\ UNCHANGED <<meta, news, usable, life, alive, view, asks, committed, nextId, crashes>>

(* The high watermark goes up: what is below it was acknowledged, and has been read. *)
Commit(n) ==
    /\ Leads(n)
    /\ Cardinality(view[n].isr) >= MinIsr \/ Has("any-isr-will-do")
    /\ LET proposed == IF Has("joiners-do-not-count") THEN {} ELSE lead[n].proposed
           counted == (view[n].isr \union proposed) \ {n}
           own == IF Has("ack-before-flush") THEN Len(log[n]) ELSE dur[n]
           ends == IF Has("ack-before-isr") THEN {own} ELSE {own} \union {lead[n].ends[f] : f \in counted}
           safe == Least(ends)
       IN  /\ safe > hw[n]
           /\ hw' = [hw EXCEPT ![n] = safe]
           /\ committed' = IF safe > Len(committed) THEN Prefix(log[n], safe) ELSE committed
    /\ UNCHANGED <<meta, news, usable, life, alive, view, log, dur, lead, asks, nextId, crashes>>

------------------------------------------------------------------------------
(* Who is in sync: what leaders ask for. *)

Ask(n, isr) ==
    asks' = IF view[n].pe < meta.pe THEN asks
            ELSE asks \union {[leader |-> n, life |-> life[n], pe |-> view[n].pe,
                               isr |-> isr, lives |-> lead[n].lives]}

(* A follower that has all that is safe, and all that was here when this leadership began. *)
Expand(n, f) ==
    /\ Leads(n) /\ lead[n].proposed = {} /\ f \notin view[n].isr
    /\ lead[n].ends[f] >= 0
    /\ \/ lead[n].ends[f] >= Max(hw[n], lead[n].start)
       \/ Has("expand-behind")
    /\ lead' = [lead EXCEPT ![n].proposed = view[n].isr \union {f}]
    /\ Ask(n, view[n].isr \union {f})
    /\ UNCHANGED <<meta, news, usable, life, alive, view, log, dur, hw, committed, nextId, crashes>>

(* A follower that lacks something, for too long. *)
Shrink(n, f) ==
    /\ Leads(n) /\ lead[n].proposed = {} /\ f \in view[n].isr \ {n}
    /\ lead[n].ends[f] < Len(log[n])
    /\ IF Has("shrink-alone")
       THEN \* it counts at once: as if everybody in sync had it
            /\ lead' = [lead EXCEPT ![n].proposed = view[n].isr \ {f}, ![n].ends[f] = MaxRecords]
       ELSE lead' = [lead EXCEPT ![n].proposed = view[n].isr \ {f}]
    /\ Ask(n, view[n].isr \ {f})
    /\ UNCHANGED <<meta, news, usable, life, alive, view, log, dur, hw, committed, nextId, crashes>>

(* A proposal is not wanted any more: what is so already is asked for, and what was proposed counts
   until the metadata has changed. *)
Withdraw(n) ==
    /\ Leads(n) /\ lead[n].proposed # {}
    /\ Ask(n, view[n].isr)
    /\ asks' # asks
    /\ UNCHANGED <<meta, news, usable, life, alive, view, log, dur, hw, lead, committed, nextId, crashes>>

------------------------------------------------------------------------------
Init ==
    /\ \E first \in Nodes :
        /\ meta = [leader |-> first, epoch |-> 0, pe |-> 0, isr |-> Nodes, elr |-> {}]
        /\ lead = [n \in Nodes |-> [NoLead EXCEPT !.on = n = first]]
    /\ usable = Nodes
    /\ life = [n \in Nodes |-> 0]
    /\ alive = [n \in Nodes |-> TRUE]
    /\ view = [n \in Nodes |-> meta]
    /\ news = [n \in Nodes |-> <<>>]
    /\ log = [n \in Nodes |-> <<>>]
    /\ dur = [n \in Nodes |-> 0]
    /\ hw = [n \in Nodes |-> 0]
    /\ asks = {}
    /\ committed = <<>>
    /\ nextId = 1
    /\ crashes = 0

Next ==
    \/ \E n \in Nodes : \/ Fence(n) \/ Unfence(n) \/ Crash(n) \/ Register(n) \/ Learn(n)
                        \/ Write(n) \/ Flush(n) \/ Commit(n) \/ Withdraw(n)
    \/ \E n, f \in Nodes : Fetch(f, n) \/ Expand(n, f) \/ Shrink(n, f)
    \/ \E a \in asks : AlterPartition(a)

Spec == Init /\ [][Next]_vars

------------------------------------------------------------------------------
TypeOk ==
    /\ meta.leader \in Nodes \union {None}
    /\ usable \subseteq Nodes
    /\ \A n \in Nodes : dur[n] \in 0..Len(log[n]) /\ hw[n] \in -1..Len(log[n]) 

(* Whoever may be elected without a loss has, on its disk, all that was ever acknowledged or read. *)
NothingIsLost ==
    LET elected == IF meta.isr = {} \/ Cardinality(meta.isr) < MinIsr
                   THEN meta.isr \union meta.elr ELSE meta.isr
    IN  \A n \in elected : IsPrefix(committed, Prefix(log[n], dur[n]))

(* What a leader shows is what every other has shown. *)
NothingIsShownTwice ==
    \A n \in Nodes : Leads(n) => IsPrefix(Prefix(log[n], hw[n]), committed)

(* Nobody leads in an epoch in which another does. *)
OneLeader ==
    \A n, m \in Nodes : Leads(n) /\ Leads(m) /\ view[n].epoch = view[m].epoch => n = m

(* Somebody can be elected, or will be able to when it is back. *)
SomebodyHasAll == meta.isr \union meta.elr # {}

Symmetry == Permutations(Nodes)
==============================================================================
