from emloom.api import Box as Box
from emloom.api import InputError as InputError
from emloom.api import OnDevice as OnDevice
from emloom.api import Result as Result
from emloom.api import Where as Where
from emloom.api import WhereAnew as WhereAnew
from emloom.api import align as align
from emloom.api import check as check
from emloom.api import connectome as connectome
from emloom.api import evaluate as evaluate
from emloom.api import open as open
from emloom.api import predict as predict
from emloom.api import qc as qc
from emloom.api import repair as repair
from emloom.api import run as run
from emloom.api import save as save
from emloom.api import segment as segment
from emloom.api import synapses as synapses
from emloom.api import train as train
from emloom.api import view as view

__version__: str
