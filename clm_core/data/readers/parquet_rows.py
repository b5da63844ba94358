""".parquet files to texts, some rows at a time."""

import zlib
from collections.abc import Iterator

from clm_core.data.columns import arrow_texts, check_column
from clm_core.data.readers.opening import File, opened_anywhere
from clm_core.errors import DataError

SLICE = 1000


def read_parquet(file: File, column: str) -> Iterator[str | None]:
    """The text of each row.

    Raises:
        DataError: it is not a Parquet file, is damaged, or has no such column.
    """
    import pyarrow
    from pyarrow import parquet

    with opened_anywhere(file) as raw:
        try:
            with parquet.ParquetFile(raw) as table:
                top = check_column(column, table.schema_arrow, file)
                for batch in table.iter_batches(batch_size=SLICE, columns=[top]):
                    yield from arrow_texts(pyarrow.Table.from_batches([batch]), column, file)
        except (pyarrow.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise DataError(f"{file}: not a Parquet file that can be read: {error}") from None
