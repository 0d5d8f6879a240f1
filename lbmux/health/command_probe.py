"""The probe that runs a command: exit code 0 means healthy."""

import asyncio
import contextlib

from lbmux.health.probe import ProbeError, Target


async def command(target: Target) -> str:
    names = {"{dip}": str(target.dip), "{port}": str(target.port)}
    words = []
    for word in target.health.command:
        for name, value in names.items():
            word = word.replace(name, value)
        words.append(word)
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*words, stdin=null, stdout=null, stderr=null)
    try:
        code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if code:
        raise ProbeError(f"{words[0]} exited with {code}" if code > 0 else f"{words[0]} was killed by signal {-code}")
    return f"{words[0]} exited with 0"
