"""Decisions.Defaults and DefaultKeys: signed lists that a caller keeps for times without a network (engine.signing)."""

from typing import TYPE_CHECKING, Any

from engine.config_schema import Offer
from engine.errors import DataFolderError, InvalidArgument, Unavailable
from engine.gateway import placed
from engine.signing import FORM, KeyFolder, PublicKey, key_id_of, signed, version_of
from engine.tokens import NO_VALUES
from opportune.v1 import defaults_pb2

if TYPE_CHECKING:
    from engine.service import Service


class DefaultsService:
    """The lists, and the keys by which they are verified."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self.key_folder: KeyFolder | None = None
        """Set where there is a data folder to keep keys in."""

    async def defaults(self, request: defaults_pb2.DefaultsRequest) -> defaults_pb2.DefaultsResponse:
        """Decisions.Defaults. Needs no store."""
        catalogue = self._service.catalogue
        channel, placement = placed(catalogue, request.channel, request.placement)
        if len(request.language.encode()) > 16:
            raise InvalidArgument(f"language: {len(request.language.encode())} bytes, at most 16 are allowed")
        language = request.language if request.language in catalogue.languages else catalogue.config.language
        issued_ms = self._service.clock()
        until_ms = issued_ms + catalogue.config.defaults.valid_for
        listed = catalogue.defaults.between(channel, issued_ms, until_ms)
        # Of what can be said only knowing the customer, nothing is.
        said = [(at, catalogue.treatments.said(channel, placement, language, at, NO_VALUES)) for at in listed]
        sayable = [(at, text) for at, text in said if text is not None]
        offers = [_entry(rank, catalogue.offers[at], text) for rank, (at, text) in enumerate(sayable, 1)]
        payload: dict[str, Any] = {
            "form": FORM,
            "configuration": catalogue.config.name,
            "config_version": catalogue.version,
            "channel": request.channel,
            "placement": request.placement,
            "language": language,
            "issued_ms": issued_ms,
            "valid_until_ms": until_ms,
            "offers": offers,
        }
        payload["version"] = version_of(payload)
        try:
            key = self._folder().key()
        except DataFolderError as error:
            raise Unavailable(f"the list cannot be signed: {error}") from error
        return defaults_pb2.DefaultsResponse(
            document=signed(payload, key),
            version=payload["version"],
            issued_ms=issued_ms,
            valid_until_ms=until_ms,
            offers=[defaults_pb2.DefaultOffer(**offer) for offer in offers],
            key_id=key_id_of(key.public_key()),
        )

    async def keys(self, _: defaults_pb2.DefaultKeysRequest) -> defaults_pb2.DefaultKeysResponse:
        """Decisions.DefaultKeys."""
        try:
            keys: list[PublicKey] = self._folder().public()
        except DataFolderError as error:
            raise Unavailable(f"the keys cannot be read: {error}") from error
        return defaults_pb2.DefaultKeysResponse(
            keys=[defaults_pb2.DefaultKey(key_id=key.key_id, pem=key.pem, current=key.current) for key in keys]
        )

    def _folder(self) -> KeyFolder:
        if self.key_folder is None:
            raise Unavailable("this server has no data folder with a key to sign with")
        return self.key_folder


def _entry(rank: int, offer: Offer, text: str) -> dict[str, Any]:
    return {
        "offer_id": offer.id,
        "rank": rank,
        "kind": offer.kind,
        "category": offer.category,
        "treatment": text,
        "from_ms": offer.starts_ms,
        "until_ms": offer.ends_ms,
    }
