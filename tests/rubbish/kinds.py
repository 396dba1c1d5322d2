"""Every kind of rubbish."""

from .bundles import bundle
from .cases import Generator
from .checkpoints import checkpoint
from .codes import codes
from .environments import environment
from .options import option
from .pictures import picture
from .recipes import recipe, table
from .records import record
from .shards import shard

KINDS: dict[str, Generator] = {
    "recipes": recipe,
    "tables": table,
    "options": option,
    "pictures": picture,
    "shards": shard,
    "codes": codes,
    "bundles": bundle,
    "checkpoints": checkpoint,
    "records": record,
    "environments": environment,
}
