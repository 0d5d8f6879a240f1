"""The probe that runs a command: exit code 0 means healthy.

The command is text of the configuration. It gets no capability, can gain none, and sees nothing of the daemon's
environment.
"""

import asyncio
import contextlib

from lbmux.health.probe import ProbeError, Target
from lbmux.linux.capabilities import with_only
from lbmux.linux.child_environment import BARE


async def command(target: Target) -> str:
    """Run the health check's command; return what it did. Raise ProbeError if its exit code is not 0."""
    names = {"{dip}": str(target.dip), "{port}": str(target.port)}
    words = []
    for word in target.health.command:
        for name, value in names.items():
            word = word.replace(name, value)
        words.append(word)
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *words, stdin=null, stdout=null, stderr=null, env=BARE, cwd="/", preexec_fn=with_only()
    )
    try:
        code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if code:
        raise ProbeError(f"{words[0]} exited with {code}" if code > 0 else f"{words[0]} was killed by signal {-code}")
    return f"{words[0]} exited with 0"
