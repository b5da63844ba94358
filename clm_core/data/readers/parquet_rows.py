""".parquet files to documents, some rows at a time."""

import zlib
from collections.abc import Iterator
from typing import Any

from clm_core.data.columns import arrow_columns, arrow_documents
from clm_core.data.documents import Wanted
from clm_core.data.readers.opening import File, opened_anywhere
from clm_core.errors import DataError

SLICE = 1000


def read_parquet(file: File, wanted: Wanted) -> Iterator[Any]:
    """The document of each row.

    Raises:
        DataError: it is not a Parquet file, is damaged, or has no such column.
    """
    import pyarrow
    from pyarrow import parquet

    with opened_anywhere(file) as raw:
        try:
            with parquet.ParquetFile(raw) as table:
                columns, first = arrow_columns(table.schema_arrow, wanted, file), 1
                for batch in table.iter_batches(batch_size=SLICE, columns=columns):
                    yield from arrow_documents(pyarrow.Table.from_batches([batch]), wanted, file, first)
                    first += batch.num_rows
        except (pyarrow.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise DataError(f"{file}: not a Parquet file that can be read: {error}") from None
