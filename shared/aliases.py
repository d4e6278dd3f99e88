"""Aliases, the public names of bidders: stable within an item, not linkable between items, not reversible without the
secret. An alias is two words and a number, such as ``amber-heron-417``, so that people can tell it apart and say it.

With ``AUTH_MODE=jwt`` the public sees bidders by their aliases alone (:func:`public_id`). The private channel of the
live feed tells each bidder which alias is theirs.

While ``ALIAS_SECRET`` is being replaced, an item keeps the secret that held when it was created: items from before
``ALIAS_SECRET_SINCE`` use ``ALIAS_SECRET_ALSO``. Redis, the item's event and the archive all have the time of its
creation, so all services make the same alias without keeping anything for it.

The settings are read once per process: all services must make the same alias, and the pure functions that make public
views and frames are called from many places.
"""

from __future__ import annotations

from functools import cache, lru_cache
from hashlib import blake2b
from typing import Final, Literal, Self

from pydantic import SecretStr, model_validator

from shared.secret_pairs import SECRET_BYTES_MIN, SecretPair, check_distinct, pair_of
from shared.settings import EnvironmentSettings

DEFAULT_SECRET: Final = "local-development"
"""For local use and tests: aliases made with it can be guessed by trying user ids."""

PATTERN: Final = r"^[a-z]{3,8}-[a-z]{3,8}-[1-9][0-9]{2}$"
"""A regular expression that every alias matches."""


class AliasSettings(EnvironmentSettings):
    """The same for every gateway, broadcaster and cache node.

    Attributes:
        alias_secret: keys the aliases.
        alias_secret_also, alias_secret_since: the key that it replaces, and since when: items from before that instant
            keep the old key.
        auth_mode: with ``jwt`` the public is shown aliases alone.
        feed_token_secret, auth_hs256_secret: the other secrets, and those that they replace; the secrets of aliases
            must differ from all of them.
    """

    alias_secret: SecretStr = SecretStr(DEFAULT_SECRET)
    alias_secret_also: SecretStr = SecretStr("")
    alias_secret_since: str = ""
    auth_mode: Literal["open", "jwt"] = "open"
    feed_token_secret: SecretStr = SecretStr("")
    feed_token_secret_also: SecretStr = SecretStr("")
    auth_hs256_secret: SecretStr = SecretStr("")
    auth_hs256_secret_also: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _aliases_hide(self) -> Self:
        secret = self.alias_secret.get_secret_value()
        for other in ("feed_token_secret", "auth_hs256_secret"):
            names = ("alias_secret", "alias_secret_also", other, f"{other}_also")
            check_distinct({name.upper(): getattr(self, name).get_secret_value() for name in names})
        if self.auth_mode == "jwt" and secret == DEFAULT_SECRET:
            raise ValueError(
                "ALIAS_SECRET must be set with AUTH_MODE=jwt: with the default anybody can find out who is behind an "
                "alias; `openssl rand -hex 32` makes a good one"
            )
        # With tokens, a bidder knows their own id and alias, and may guess the secret offline.
        pair_of(self, "alias_secret", bytes_min=SECRET_BYTES_MIN if self.auth_mode == "jwt" else 1)
        return self


@cache
def _settings() -> AliasSettings:
    return AliasSettings()


@cache
def alias_secrets() -> SecretPair:
    """The secret of aliases, and the one that it replaces. Its count of uses counts the aliases that were made with the
    replaced one, of open items and of closed ones."""
    return pair_of(_settings(), "alias_secret", bytes_min=1)


@cache
def _key(secret: str) -> bytes:
    return blake2b(secret.encode(), digest_size=32).digest()


def alias_of(item_id: str, user_id: str, created_us: int | None) -> str:
    """The bidder's public name on this item, for example ``amber-heron-417``.

    Args:
        created_us: when the item was created, in microseconds of Unix time, which decides the secret. None: the item
            does not exist yet.

    There are 59 million aliases. Two bidders of an item share one in one of 12,000 items with a hundred bidders each,
    and in one of 120 with a thousand.
    """
    pair = alias_secrets()
    secret = pair.now() if created_us is None else pair.at(created_us)
    pair.note(secret)
    return _alias(secret, item_id, user_id)


@lru_cache(maxsize=65_536)
def _alias(secret: str, item_id: str, user_id: str) -> str:
    digest = blake2b(f"{item_id}\0{user_id}".encode(), key=_key(secret), digest_size=8).digest()
    rest, number = divmod(int.from_bytes(digest), _NUMBERS)
    rest, noun = divmod(rest, len(_NOUNS))
    return f"{_ADJECTIVES[rest % len(_ADJECTIVES)]}-{_NOUNS[noun]}-{100 + number}"


@cache
def _hides_ids() -> bool:
    return _settings().auth_mode == "jwt"


@cache
def naming() -> str:
    """A fingerprint of how the public sees bidders, 8 hexadecimal digits: it is equal where ``AUTH_MODE``,
    ``ALIAS_SECRET``, the secret that it replaces, and the instant of the change are equal."""
    pair = alias_secrets()
    said = _key(pair.secret) + bytes([_hides_ids()])
    if pair.also:
        said += _key(pair.also) + pair.since_us.to_bytes(8, signed=True)
    return blake2b(said, digest_size=4, person=b"naming").hexdigest()


def public_id(item_id: str, user_id: str, created_us: int | None) -> str:
    """How the public sees a bidder: by the user id, or with ``AUTH_MODE=jwt`` by the alias (:func:`alias_of`)."""
    return alias_of(item_id, user_id, created_us) if _hides_ids() else user_id


_NUMBERS: Final = 900
# 256 words each, of 3 to 8 letters, none that is one letter away from another. Aliases depend on their order: a change
# to them renames every bidder.
_ADJECTIVE_WORDS: Final = (
    "able agile airy alert amber ample ardent artful ashen astute auburn avid azure balmy bamboo beige blithe bold "
    "brass brave breezy bright brisk bronze bubbly buff burgundy calm canvas careful carmine cedar cerise chalky "
    "cherry civil classic clear clever cobalt cocoa cool copper coral cordial cosmic cotton crimson crisp crystal "
    "curious cyan dainty dapper daring deft denim distant dreamy droll eager early earnest easy ebony ecru elegant "
    "emerald enamel epic equal exact fabled fair famous fancy fawn festive flaxen fleet fluent fluffy fond formal "
    "frank fresh friendly frosted frugal gallant genial gentle genuine gifted gilded ginger glad golden graceful "
    "grand granite hale happy hardy hazel hearty honest honey humble ideal indigo iron ivory jade jasper jaunty jolly "
    "jovial joyful keen khaki kind lacquer lasting lavender lavish learned lemon light lilac linen lively lofty loyal "
    "lucid lucky lunar lyric magic maple marble maroon mauve merry mighty mild mint modest mossy musical mustard navy "
    "neat nickel nimble noble novel oaken ochre olive opal open orange orderly paper pastel patient peaceful peach "
    "pearl pewter plaid plum poetic polar polite prime proper proud prudent punctual purple quaint quartz quick quiet "
    "radiant rapid rare ready regal robust rosy ruby rural russet rustic saffron sandy sapphire satin scarlet sepia "
    "serene sharp shining silent silken silver simple sincere slate sleek smart smooth snowy snug social solemn solid "
    "sonic speckled spotted spry stable starry stately steady steel stellar still striped sturdy suave subtle suede "
    "sunny superb sure swift tactful tartan tawny teal topaz tweed vanilla velvet verdant violet walnut wheaten "
    "wooden woollen yellow zinc "
)
_NOUN_WORDS: Final = (
    "acacia alder almond alpaca anchovy antelope apple ash aspen aster avocet badger banyan baobab barbet beech "
    "begonia birch bison bluebell bluebird bracken bunting bustard buzzard camel camellia canary cardinal caribou "
    "chamois cheetah chipmunk coati condor cowslip crocus curlew cypress dace daffodil dahlia daisy dingo dipper "
    "dolphin dormouse dove dunlin dunnock eagle egret eider eland elk ermine falcon fennec ferret finch fir flamingo "
    "flicker flounder fox foxglove freesia fuchsia gannet gazelle gecko genet giraffe godwit goshawk grayling grouper "
    "haddock halibut hare harebell harrier hawk hawthorn heron hickory holly hoopoe hornbeam hornbill hyacinth ibex "
    "ibis impala ivy jacana jaguar jasmine jay jerboa juniper kestrel kinglet kiwi koala kudu lapwing larch lark "
    "laurel lemur leopard lily lime linden linnet llama loon lotus lupin macaw mackerel magnolia magpie mallard "
    "manatee mango margay marigold marmot medlar meerkat merlin mimosa mink minnow mole mongoose moorhen moose "
    "mulberry muntjac myrtle narwhal nightjar nuthatch ocelot okapi orca orchid oriole oryx osprey otter ouzel owl "
    "oxpecker oyster panda pangolin pansy panther peacock pear pelican penguin perch petrel petunia pheasant pika "
    "pine pintail platypus plover pochard poppy porpoise puffin puma quail quokka rabbit raven redpoll redstart "
    "reindeer robin rook rose rosella rowan sable salmon sardine scallop seahorse seal serval shelduck shrike siskin "
    "skua snipe snowdrop sorrel sparrow sprat spruce starfish stilt stork sturgeon sunbird sunfish swallow swan "
    "sycamore tanager tapir tench tern thistle thyme tiger tortoise toucan trout tulip tuna turaco turtle urchin "
    "verbena vicuna wallaby walrus waxbill waxwing weaver wheatear whimbrel whinchat willow wolf wombat woodcock "
    "woodlark wrasse wren wryneck yak yarrow yew zebra zinnia "
)
_ADJECTIVES: Final = _ADJECTIVE_WORDS.split()
_NOUNS: Final = _NOUN_WORDS.split()
