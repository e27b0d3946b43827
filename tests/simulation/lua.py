"""A real Lua 5.1 for the twin of Redis, with Redis' own conversions between replies and Lua's values
(redis.io, "Lua API reference")."""

import math
from typing import Any

from lupa import lua51
from redis.exceptions import ResponseError

_lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, encoding="utf-8")
_compile, run = _lua.execute("""
local python_call
local function convert(kind, ...)
  if kind == 'list' then return {...} end
  if kind == 'status' then return { ok = ... } end
  if kind == 'error' then return { err = ... } end
  return ...
end
local redis = {
  pcall = function(...) return convert(python_call(...)) end,
  call = function(...)
    local reply = convert(python_call(...))
    if type(reply) == 'table' and reply.err then error(reply, 0) end
    return reply
  end,
  error_reply = function(text) return { err = text } end,
  status_reply = function(text) return { ok = text } end,
  sha1hex = nil,
  log = function() end, LOG_WARNING = 3,
}
local allowed = { redis = redis, string = string, math = math, table = table, tonumber = tonumber,
  tostring = tostring, unpack = unpack, pairs = pairs, ipairs = ipairs, type = type, error = error,
  pcall = pcall, select = select, assert = assert, next = next }
local function compile(text)
  return assert(loadstring(text, '@user_script'))
end
local function run(call, chunk, keys, ...)
  python_call = call
  local all = {...}
  local KEYS, ARGV = {}, {}
  for i = 1, keys do KEYS[i] = all[i] end
  for i = keys + 1, #all do ARGV[i - keys] = all[i] end
  setfenv(chunk, setmetatable({ KEYS = KEYS, ARGV = ARGV }, { __index = allowed,
    __newindex = function(_, name) error('no global variables: ' .. name) end }))
  local ok, reply = pcall(chunk)
  if ok then return reply end
  if type(reply) == 'table' then return reply end
  return { err = 'ERR ' .. tostring(reply) }
end
return compile, run
""")
_compiled: dict[str, Any] = {}  # by text: compiling is the dear part, and pure


def chunk(text: str) -> Any:
    known = _compiled.get(text)
    if known is None:
        if len(_compiled) > 500:
            _compiled.clear()
        lines = text.split("\n", 1)
        # The line that says which flags a script has is Redis' own, not Lua's.
        known = _compiled[text] = _compile("\n" + lines[1] if text.startswith("#!") else text)
    return known


def from_lua(value: Any) -> Any:
    """A script's result as the client gets it: numbers cut to integers, lists up to the first nil."""
    if value is None or value is False:
        return None
    if value is True:
        return 1
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return math.trunc(value)
    if value["err"] is not None:
        raise ResponseError(value["err"])
    if value["ok"] is not None:
        return value["ok"]
    found, index = [], 1
    while (item := value[index]) is not None:
        found.append(from_lua(item))
        index += 1
    return found
