import Lean.Environment
/-! Hands declarations that come as plain numbers to the kernel. Trusted, fixed, and never compiled beside a submission.

Its list functions are its own: the interpreter of the WebAssembly build lacks the bodies of many of the library's. -/
open Lean

structure State where
  names : Array Name
  levels : Array Level
  exprs : Array Expr
  env : Environment
  /-- 0: all well; 1: the kernel refused; 2: out of its limits; 3: the stream is no stream. -/
  bad : Nat

def turn : List α → List α → List α
  | [], made => made
  | x :: xs, made => turn xs (x :: made)

def take : Nat → List Nat → List Nat
  | 0, _ => []
  | _, [] => []
  | n + 1, x :: xs => x :: take n xs

def drop : Nat → List Nat → List Nat
  | 0, xs => xs
  | _, [] => []
  | n + 1, _ :: xs => drop n xs

def each (f : Nat → α) : List Nat → List α
  | [] => []
  | x :: xs => f x :: each f xs

partial def numbers (bytes : ByteArray) (at_ : Nat) (current : Nat) (made : List Nat) : List Nat :=
  if at_ < bytes.size then
    let c := (bytes.get! at_).toNat
    if c == 32 then numbers bytes (at_ + 1) 0 (current :: made)
    else numbers bytes (at_ + 1) (current * 10 + (c - 48)) made
  else turn made []

def text : List Nat → String → String
  | [], s => s
  | c :: cs, s => text cs (s.push (Char.ofNat c))

def State.name (s : State) (i : Nat) : Name := s.names.getD i .anonymous
def State.level (s : State) (i : Nat) : Level := s.levels.getD i .zero
def State.expr (s : State) (i : Nat) : Expr := s.exprs.getD i (.bvar 0)

def State.add (s : State) (d : Declaration) : State :=
  match s.env.addDeclCore 1000000000 d none with
  | .ok env => { s with env := env }
  | .error .deterministicTimeout => { s with bad := 2 }
  | .error .excessiveMemory => { s with bad := 2 }
  | .error .deepRecursion => { s with bad := 2 }
  | .error .interrupted => { s with bad := 2 }
  | .error _ => { s with bad := 1 }

def ctors (s : State) : Nat → List Nat → List Constructor → List Constructor × List Nat
  | 0, rest, made => (turn made [], rest)
  | n + 1, name :: type :: rest, made => ctors s n rest ({ name := s.name name, type := s.expr type } :: made)
  | _, _, made => (made, [])

def types (s : State) : Nat → List Nat → List InductiveType → List InductiveType
  | 0, _, made => turn made []
  | n + 1, name :: type :: count :: rest, made =>
    let (own, rest) := ctors s count rest []
    types s n rest ({ name := s.name name, type := s.expr type, ctors := own } :: made)
  | _, _, _ => []

def hints : Nat → ReducibilityHints
  | 0 => .opaque
  | 1 => .abbrev
  | n + 2 => .regular (UInt32.ofNat n)

def step (s : State) (op : Nat) (a : List Nat) : State :=
  match op, a with
  | 1, p :: cs => { s with names := s.names.push (.str (s.name p) (text cs "")) }
  | 2, [p, n] => { s with names := s.names.push (.num (s.name p) n) }
  | 3, [l] => { s with levels := s.levels.push (.succ (s.level l)) }
  | 4, [l, m] => { s with levels := s.levels.push (.max (s.level l) (s.level m)) }
  | 5, [l, m] => { s with levels := s.levels.push (.imax (s.level l) (s.level m)) }
  | 6, [n] => { s with levels := s.levels.push (.param (s.name n)) }
  | 7, [] => { s with levels := s.levels.push .zero }
  | 10, [i] => { s with exprs := s.exprs.push (.bvar i) }
  | 11, [l] => { s with exprs := s.exprs.push (.sort (s.level l)) }
  | 12, n :: ls => { s with exprs := s.exprs.push (.const (s.name n) (each s.level ls)) }
  | 13, [f, x] => { s with exprs := s.exprs.push (.app (s.expr f) (s.expr x)) }
  | 14, [t, b] => { s with exprs := s.exprs.push (.lam `x (s.expr t) (s.expr b) .default) }
  | 15, [t, b] => { s with exprs := s.exprs.push (.forallE `x (s.expr t) (s.expr b) .default) }
  | 16, [t, v, b] => { s with exprs := s.exprs.push (.letE `x (s.expr t) (s.expr v) (s.expr b) false) }
  | 17, [k] => { s with exprs := s.exprs.push (.lit (.natVal k)) }
  | 18, [n, i, e] => { s with exprs := s.exprs.push (.proj (s.name n) i (s.expr e)) }
  | 19, cs => { s with exprs := s.exprs.push (.lit (.strVal (text cs ""))) }
  | 20, n :: t :: v :: us => s.add (.thmDecl
      { name := s.name n, levelParams := each s.name us, type := s.expr t, value := s.expr v })
  | 21, n :: t :: v :: h :: us => s.add (.defnDecl
      { name := s.name n, levelParams := each s.name us, type := s.expr t, value := s.expr v,
        hints := hints h, safety := .safe })
  | 22, params :: count :: rest =>
    let us := each s.name (take count rest)
    match drop count rest with
    | n :: more => s.add (.inductDecl us params (types s n more []) false)
    | [] => { s with bad := 3 }
  | 23, n :: t :: v :: us => s.add (.opaqueDecl
      { name := s.name n, levelParams := each s.name us, type := s.expr t, value := s.expr v, isUnsafe := false })
  | 24, n :: t :: us => s.add (.axiomDecl
      { name := s.name n, levelParams := each s.name us, type := s.expr t, isUnsafe := false })
  | _, _ => { s with bad := 3 }

partial def run (s : State) : List Nat → State
  | op :: n :: rest => if s.bad == 0 then run (step s op (take n rest)) (drop n rest) else s
  | [] => s
  | _ => { s with bad := 3 }

def said : Nat → String
  | 0 => "ok"
  | 1 => "reject"
  | 2 => "limit"
  | _ => "malformed"

/-- Replay the files 0.numbers, 1.numbers, ... and leave 0.said, 1.said, ... as soon as each is known. -/
partial def replay (env : Environment) (at_ : Nat) : Nat → IO Unit
  | 0 => pure ()
  | n + 1 => do
    let bytes ← IO.FS.readBinFile (toString at_ ++ ".numbers")
    let s := run ⟨#[.anonymous], #[], #[], env, 0⟩ (numbers bytes 0 0 [])
    IO.FS.writeFile (toString at_ ++ ".said") (said s.bad)
    replay env (at_ + 1) n

/-- Import, wait where the toolchain lets `agenthub-go` be waited for, and replay as many as `count` says. -/
def start (modules : Array Import) : IO Unit := do
  let env ← importModules modules {} 0
  let _ ← IO.FS.readBinFile "agenthub-go"
  let bytes ← IO.FS.readBinFile "count"
  match numbers bytes 0 0 [] with
  | [n] => replay env 0 n
  | _ => throw (IO.userError "no count")
